//! Writes the line `saved` to COM1 and waits until the machine has another generation, which is when it goes on from a
//! snapshot; then it writes the line `ready` and powers off with exit code 0.
//!
//! No runtime at all, so that the time to the line is the launcher's.
#![no_std]
#![no_main]

use kvmlet_guests as _; // the panic handler
use kvmlet_guests::machine::{GENERATION_ADDRESS, SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};

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
    "mov dx, {port}", // ACPI sleep control; exit code 0 needs no announcement
    "mov al, {power_off}",
    "out dx, al",
    "3: hlt",
    "jmp 3b",
    ".text",
    generation = const GENERATION_ADDRESS,
    port = const SLEEP_CONTROL_PORT,
    power_off = const SLEEP_POWER_OFF,
);
