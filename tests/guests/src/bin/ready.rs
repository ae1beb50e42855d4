//! Writes the line `ready` to COM1 with its first instructions and powers off with exit code 0.
//!
//! No runtime at all, so that the time to the line is the launcher's. The instructions mean the same in 32 and in
//! 64 bits, so with the feature `pvh` their start is the entry point of PVH as well.
#![no_std]
#![no_main]

use kvmlet_guests as _; // the panic handler
use kvmlet_guests::machine::{SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};

#[cfg(feature = "pvh")]
kvmlet_guests::pvh_note!("_start");

core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "mov dx, 0x3f8",
    ".irp letter, 'r', 'e', 'a', 'd', 'y', 10",
    "mov al, \\letter",
    "out dx, al",
    ".endr",
    "mov dx, {port}", // ACPI sleep control; exit code 0 needs no announcement
    "mov al, {power_off}",
    "out dx, al",
    "mov al, 0xfe", // other VMMs: i8042 reset
    "out 0x64, al",
    "2: hlt",
    "jmp 2b",
    ".text",
    port = const SLEEP_CONTROL_PORT,
    power_off = const SLEEP_POWER_OFF,
);
