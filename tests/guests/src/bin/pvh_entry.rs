//! Carries a PVH note and checks the hand-over: entered by PVH, with the right magic number
//! and a memory map. Prints `pvh version=N ram=BYTES rsdp=ADDRESS cmdline=...`; ends with 0,
//! or 1 and what is wrong.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::{BootInfo, Protocol, START_INFO_MAGIC};
use kvmlet_guests::println;

kvmlet_guests::program!(run);
kvmlet_guests::pvh_note!();

fn run(info: &BootInfo) -> u8 {
    if info.protocol != Protocol::Pvh {
        println!("entered by the Linux 64-bit protocol in spite of the PVH note");
        return 1;
    }
    let (magic, version) = info.start_info_magic_and_version();
    if magic != START_INFO_MAGIC || version == 0 {
        println!("start info magic {magic:#x}, version {version}");
        return 1;
    }
    let ram: u64 = info.ram().map(|entry| entry.size).sum();
    println!(
        "pvh version={version} ram={ram} rsdp={:#x} cmdline={}",
        info.rsdp, info.command_line
    );
    0
}
