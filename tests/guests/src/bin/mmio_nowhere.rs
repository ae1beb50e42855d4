//! Reads and writes memory and ports that belong to no device: reads must give all ones in
//! every width, writes must do nothing. Prints `ok` and ends with 0, or says what was read.
//!
//! `mmio=ADDRESS` and `port=PORT` choose other places than 0xcfff0000 and 0x1230.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::{mmio, port, println};

kvmlet_guests::program!(run);

fn run(info: &BootInfo) -> u8 {
    let address = info.number("mmio").unwrap_or(0xcfff_0000);
    let first_port = info.number("port").unwrap_or(0x1230) as u16;
    let before = check_memory(address) & check_ports(first_port);
    write(address, first_port);
    let after = check_memory(address) & check_ports(first_port);
    if before && after {
        println!("ok");
    }
    u8::from(!(before && after))
}

fn check_memory(address: u64) -> bool {
    all_ones(
        "8 bits of memory",
        mmio::read8(address + 1).into(),
        u8::MAX.into(),
    ) & all_ones(
        "16 bits of memory",
        mmio::read16(address + 2).into(),
        u16::MAX.into(),
    ) & all_ones(
        "32 bits of memory",
        mmio::read32(address + 4).into(),
        u32::MAX.into(),
    ) & all_ones("64 bits of memory", mmio::read64(address + 8), u64::MAX)
}

fn check_ports(first: u16) -> bool {
    all_ones("an 8-bit port", port::inb(first).into(), u8::MAX.into())
        & all_ones("a 16-bit port", port::inw(first).into(), u16::MAX.into())
        & all_ones("a 32-bit port", port::inl(first).into(), u32::MAX.into())
}

fn all_ones(what: &str, found: u64, expected: u64) -> bool {
    if found != expected {
        println!("{what}: read {found:#x}");
    }
    found == expected
}

fn write(address: u64, first_port: u16) {
    // SAFETY: an address outside RAM, so no memory of Rust's.
    unsafe {
        mmio::write8(address + 1, 0x12);
        mmio::write16(address + 2, 0x1234);
        mmio::write32(address + 4, 0x1234_5678);
        mmio::write64(address + 8, 0x1234_5678_9abc_def0);
    }
    port::outb(first_port, 0x12);
    port::outw(first_port, 0x1234);
    port::outl(first_port, 0x1234_5678);
}
