//! Writes `R` to COM1 with its first instructions and stays, for measuring the memory that
//! the VMM uses.
#![no_std]
#![no_main]

use kvmlet_guests as _; // the panic handler

core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "mov dx, 0x3f8",
    "mov al, 'R'",
    "out dx, al",
    "cli",
    "2: hlt", // a halted vCPU costs no host CPU time
    "jmp 2b",
    ".text",
);
