//! Writes 123 to Firecracker's boot timer at 0xd0000000 and powers off with exit code 0.
#![no_std]
#![no_main]

use kvmlet_guests as _; // the panic handler

core::arch::global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "mov eax, 0xd0000000",
    "mov byte ptr [rax], 123",
    "mov dx, 0x600",
    "mov al, 0x34",
    "out dx, al",
    "mov al, 0xfe",
    "out 0x64, al",
    "2: hlt",
    "jmp 2b",
    ".text",
);
