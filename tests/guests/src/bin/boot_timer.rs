//! Writes 123 to Firecracker's boot timer at 0xd0000000 and powers off with exit code 0.
#![no_std]
#![no_main]

use kvmlet_guests as _; // the panic handler
use kvmlet_guests::machine::{BOOT_TIMER_ADDRESS, SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};

core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "mov eax, {timer}",
    "mov byte ptr [rax], 123",
    "mov dx, {port}",
    "mov al, {power_off}",
    "out dx, al",
    "mov al, 0xfe",
    "out 0x64, al",
    "2: hlt",
    "jmp 2b",
    ".text",
    port = const SLEEP_CONTROL_PORT,
    power_off = const SLEEP_POWER_OFF,
    timer = const BOOT_TIMER_ADDRESS,
);
