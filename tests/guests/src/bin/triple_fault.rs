//! Ends in a triple fault: an invalid instruction with an empty IDT.
#![no_std]
#![no_main]

use core::arch::asm;

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::interrupts::in_kernel;
use kvmlet_guests::println;

kvmlet_guests::program!(run);

fn run(_: &BootInfo) -> u8 {
    println!("triple fault");
    in_kernel(fault, 0);
    println!("survived a triple fault");
    1
}

extern "C" fn fault(_: u64) -> u64 {
    let empty_idt = [0u8; 10];
    // SAFETY: at CPL0; the machine is not meant to go on from here.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) empty_idt.as_ptr()) };
    0
}
