//! Reports a panic through pvpanic, then asks for a reset, as Linux does with `panic=-1`.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::{power, println};

kvmlet_guests::program!(run);

fn run(_: &BootInfo) -> u8 {
    // What would clear a terminal.
    println!("\u{1b}[2Jpanicking");
    power::report_panic();
    power::reset()
}
