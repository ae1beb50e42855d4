//! Never ends: writes `.` to COM1 after every `period=` rounds of an empty loop (default
//! 2^24, some ten milliseconds), so that the host can tell a running vCPU from a paused one.
//! `period=0` writes one byte and then spins in silence, without ever leaving the guest.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::serial;

kvmlet_guests::program!(run);

fn run(info: &BootInfo) -> u8 {
    let period = match info.number("period") {
        None => 1 << 24,
        Some(0) => u64::MAX,
        Some(rounds) => rounds,
    };
    loop {
        serial::write(b".");
        for _ in 0..period {
            core::hint::spin_loop();
        }
    }
}
