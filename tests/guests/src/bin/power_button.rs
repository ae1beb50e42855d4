//! Hears the power button, interrupt 3 of the I/O APIC: writes `ready`, then `pressed` for each press, and after
//! `presses=` of them (default 1, 0: never) powers off with exit code `code=`. With `silent=1` it does not write `ready`.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::machine::POWER_BUTTON_PIN;
use kvmlet_guests::{interrupts, ioapic, lapic, println};

kvmlet_guests::program!(run);

const VECTOR: u8 = 0x31;

static PRESSES: AtomicU64 = AtomicU64::new(0);

fn run(info: &BootInfo) -> u8 {
    let wanted = info.number("presses").unwrap_or(1);
    interrupts::set_handler(VECTOR, pressed);
    lapic::enable();
    ioapic::route_edge(POWER_BUTTON_PIN, VECTOR, lapic::id());
    if info.number("silent").is_none() {
        println!("ready");
    }
    let mut seen = 0;
    loop {
        let presses = PRESSES.load(Ordering::Relaxed);
        if presses > seen {
            seen = presses;
            println!("pressed");
        }
        if wanted > 0 && presses >= wanted {
            return info.number("code").unwrap_or(0) as u8;
        }
        interrupts::wait();
    }
}

fn pressed() {
    // There is one vCPU, and this interrupts it while it halts.
    PRESSES.store(PRESSES.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
