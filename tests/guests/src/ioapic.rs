//! The IOAPIC at its usual address (Intel 82093AA data sheet).

use crate::mmio::{read32, write32};

const SELECT: u64 = 0xfec0_0000;
const WINDOW: u64 = 0xfec0_0010;
const VERSION: u32 = 0x01;
const REDIRECTION: u32 = 0x10;
/// Redirection entry: level-triggered, and masked.
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// Number of input pins.
pub fn pins() -> u32 {
    (read(VERSION) >> 16 & 0xff) + 1
}

/// Sends edges of `pin` as interrupt `vector` to the CPU with this (8-bit) APIC id.
pub fn route_edge(pin: u32, vector: u8, apic_id: u32) {
    let register = REDIRECTION + 2 * pin;
    write(register, MASKED);
    write(register + 1, apic_id << 24);
    write(register, vector.into());
}

/// Asks for `pin` to be level-triggered; true if it says that it is.
pub fn make_level(pin: u32) -> bool {
    let register = REDIRECTION + 2 * pin;
    write(register, read(register) | LEVEL);
    read(register) & LEVEL != 0
}

fn read(register: u32) -> u32 {
    // SAFETY: a register of the IOAPIC.
    unsafe { write32(SELECT, register) };
    read32(WINDOW)
}

fn write(register: u32, value: u32) {
    // SAFETY: registers of the IOAPIC.
    unsafe {
        write32(SELECT, register);
        write32(WINDOW, value);
    }
}
