//! Does what it is told on COM1, and halts in between: `t` writes to every page of RAM and prints
//! `touched=BYTES`, `s` spins for ever, `q` ends it with exit code 0.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::{self, IMAGE_START, PAGE_BYTES};
use kvmlet_guests::{interrupts, mmio, println, serial};

kvmlet_guests::program!(run);

static TOUCH: AtomicBool = AtomicBool::new(false);
static SPIN: AtomicBool = AtomicBool::new(false);
static QUIT: AtomicBool = AtomicBool::new(false);

fn run(info: &BootInfo) -> u8 {
    serial::on_input(listen);
    println!("ready");
    // Bytes that came before the interrupt was on have raised no edge.
    listen();
    while !QUIT.load(Ordering::Relaxed) {
        if TOUCH.swap(false, Ordering::Relaxed) {
            println!("touched={}", touch(info));
        }
        while SPIN.load(Ordering::Relaxed) {
            core::hint::spin_loop();
        }
        interrupts::wait();
    }
    0
}

fn listen() {
    while let Some(byte) = serial::try_read() {
        match byte {
            b't' => TOUCH.store(true, Ordering::Relaxed),
            b's' => SPIN.store(true, Ordering::Relaxed),
            b'q' => QUIT.store(true, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Writes to all pages but those that this program lives in; how many bytes there are in all.
fn touch(info: &BootInfo) -> u64 {
    let in_use = IMAGE_START..heap::next_free();
    for entry in info.ram() {
        let pages = entry.start.next_multiple_of(PAGE_BYTES)..entry.end() / PAGE_BYTES * PAGE_BYTES;
        let pages = pages.step_by(PAGE_BYTES as usize);
        for page in pages.filter(|page| !in_use.contains(page)) {
            // SAFETY: RAM outside the image and the pages that the heap has given out.
            unsafe { mmio::write64(page, page) };
        }
    }
    info.ram().map(|entry| entry.size).sum()
}
