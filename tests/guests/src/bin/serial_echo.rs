//! Echoes what arrives on COM1 in upper case, polling; `q` ends it with exit code 42.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::port::outb;
use kvmlet_guests::{println, serial};

/// MCR: DTR and RTS, without which the other side has no reason to send.
const MCR_READY: u8 = 0x03;

kvmlet_guests::program!(run);

fn run(_: &BootInfo) -> u8 {
    println!("ready");
    outb(serial::MCR, MCR_READY);
    loop {
        match serial::try_read() {
            Some(b'q') => return 42,
            Some(byte) => serial::write(&[byte.to_ascii_uppercase()]),
            None => core::hint::spin_loop(),
        }
    }
}
