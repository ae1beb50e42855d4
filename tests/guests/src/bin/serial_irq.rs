//! Echoes what arrives on COM1 in upper case, driven by IRQ 4 through the IOAPIC while the
//! CPU halts; `q` ends it with exit code 42.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::port::outb;
use kvmlet_guests::{interrupts, ioapic, lapic, println, serial};

kvmlet_guests::program!(run);

const SERIAL_PIN: u32 = 4;
const SERIAL_VECTOR: u8 = 0x24;
/// IER: interrupt when a byte has been received.
const IER_RECEIVED: u8 = 0x01;
/// MCR: DTR, RTS and OUT2, which connects a PC's UART to its interrupt line.
const MCR_INTERRUPTS: u8 = 0x0b;

static QUIT: AtomicBool = AtomicBool::new(false);

fn run(_: &BootInfo) -> u8 {
    interrupts::set_handler(SERIAL_VECTOR, echo);
    lapic::enable();
    ioapic::route_edge(SERIAL_PIN, SERIAL_VECTOR, lapic::id());
    outb(serial::MCR, MCR_INTERRUPTS);
    outb(serial::IER, IER_RECEIVED);
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
