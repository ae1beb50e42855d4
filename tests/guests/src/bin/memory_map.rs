//! Checks that all RAM of the memory map is there: writes to the first and last page of each
//! range and every 64 MiB between, then reads everything back, so that two addresses that
//! lead to the same memory are noticed.
//!
//! Prints each entry as `map START-END KIND`, then `ram=BYTES`; ends with 0, or 1 if a page
//! did not hold what was written.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::{BootInfo, MemoryEntry};
use kvmlet_guests::heap::{self, IMAGE_START, PAGE_BYTES};
use kvmlet_guests::{mmio, println};

kvmlet_guests::program!(run);

const STEP_BYTES: u64 = 64 << 20;

fn run(info: &BootInfo) -> u8 {
    for entry in info.memory_map() {
        println!("map {:#x}-{:#x} {}", entry.start, entry.end(), entry.kind);
    }
    for page in info.ram().flat_map(samples) {
        // SAFETY: RAM outside the image and the pages that the heap has given out.
        unsafe { mmio::write64(page, pattern(page)) };
    }
    let wrong = info
        .ram()
        .flat_map(samples)
        .filter(|page| !holds(*page))
        .count();
    println!("ram={}", info.ram().map(|entry| entry.size).sum::<u64>());
    u8::from(wrong != 0)
}

/// The pages to try in `entry`, but for those that this program lives in.
fn samples(entry: MemoryEntry) -> impl Iterator<Item = u64> {
    let last = entry.end() - PAGE_BYTES;
    let in_use = IMAGE_START..heap::next_free();
    (entry.start..last)
        .step_by(STEP_BYTES as usize)
        .chain([last])
        .filter(move |page| !in_use.contains(page))
}

fn pattern(page: u64) -> u64 {
    page ^ 0x5aa5_0ff0_c33c_9669
}

fn holds(page: u64) -> bool {
    let found = mmio::read64(page);
    if found != pattern(page) {
        println!("{page:#x}: wrote {:#x}, read {found:#x}", pattern(page));
    }
    found == pattern(page)
}
