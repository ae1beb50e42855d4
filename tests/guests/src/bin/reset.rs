//! Asks the i8042 to reset the machine.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::{power, println};

kvmlet_guests::program!(run);

fn run(_: &BootInfo) -> u8 {
    println!("resetting");
    power::reset()
}
