//! Jumps to an address where no memory is: no processor can go on from there.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;

kvmlet_guests::program!(run);

/// Device memory in which there is no device.
const NOWHERE: usize = 0xd800_0000;

fn run(_: &BootInfo) -> u8 {
    // SAFETY: does not return; the guest's page tables map the address.
    let nowhere: extern "C" fn() -> u8 = unsafe { core::mem::transmute(NOWHERE) };
    nowhere()
}
