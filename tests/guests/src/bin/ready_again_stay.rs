//! Writes the line `saved` to COM1 and waits until the machine has another generation, which is when it goes on from a
//! snapshot; then it writes the line `ready` and stays, for measuring the memory that one of many such machines uses.
//!
//! No runtime at all, so that the time to the line is the launcher's.
#![no_std]
#![no_main]

use kvmlet_guests as _; // the panic handler
use kvmlet_guests::machine::GENERATION_ADDRESS;

core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "mov rbx, [{generation}]",
    "mov dx, 0x3f8",
    ".irp letter, 's', 'a', 'v', 'e', 'd', 10",
    "mov al, \\letter",
    "out dx, al",
    ".endr",
    "2: cmp rbx, [{generation}]",
    "je 2b",
    ".irp letter, 'r', 'e', 'a', 'd', 'y', 10",
    "mov al, \\letter",
    "out dx, al",
    ".endr",
    "cli",
    "3: hlt", // a halted vCPU costs no host CPU time
    "jmp 3b",
    ".text",
    generation = const GENERATION_ADDRESS,
);
