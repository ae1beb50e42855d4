//! Echoes what arrives on COM1 in upper case, driven by IRQ 4 through the IOAPIC while the
//! CPU halts; `q` ends it with exit code 42. With `trigger=level` it asks for that, and tells what it got.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::port::outb;
use kvmlet_guests::{interrupts, ioapic, println, serial};

kvmlet_guests::program!(run);

static QUIT: AtomicBool = AtomicBool::new(false);

fn run(boot: &BootInfo) -> u8 {
    serial::on_input(echo);
    if boot.option("trigger") == Some("level") {
        println!("level-triggered: {}", ioapic::make_level(serial::PIN));
    }
    println!("ready, {} IOAPIC pins", ioapic::pins());
    // Bytes that came before the interrupt was on have raised no edge.
    echo();
    while !QUIT.load(Ordering::Relaxed) {
        interrupts::wait();
    }
    42
}

fn echo() {
    while let Some(byte) = serial::try_read() {
        if byte == b'q' {
            QUIT.store(true, Ordering::Relaxed);
        } else {
            outb(serial::COM1, byte.to_ascii_uppercase());
        }
    }
}
