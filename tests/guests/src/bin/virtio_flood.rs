//! Asks of each of `devices=ADDRESS,...` as much as its queues hold, of the largest requests that there are, and again
//! as soon as they are answered; with `out=1` the serial port is flooded as well. With `mode=reset` it resets each
//! device instead, as fast as it can, and breaks the rules in between. Prints `flooding` once all have been asked.
//! Never ends.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::{PAGE_BYTES, take_pages};
use kvmlet_guests::mmio::{read16, read32, write16, write32, write64};
use kvmlet_guests::{println, serial};

kvmlet_guests::program!(run);

/// Registers (virtio 1.2 §4.2.2).
const DEVICE_ID: u64 = 0x08;
const SIZE_MAX: u64 = 0x34;
const NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
/// Flags of a descriptor (§2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Feature bit 28, indirect descriptors, and bit 32, VERSION_1: the lower bit of the upper half.
const FEATURES: [u32; 2] = [1 << 28, 1];

/// Pieces of data in a request to a disk, and the size of each.
const PIECES: u64 = 126;
const PIECE_BYTES: u64 = 4 << 20;
/// Numbers of pages in a request to a balloon.
const PAGES: u64 = 4096;

/// A queue whose requests are all the same.
struct Flood {
    registers: u64,
    number: u32,
    size: u16,
    rings: u64,
}

/// What all requests point to.
struct Memory {
    header: u64,
    /// An indirect table of a disk's request.
    table: u64,
    data: u64,
    pages: u64,
}

fn run(info: &BootInfo) -> u8 {
    let memory = Memory::new();
    let devices = info.option("devices").unwrap_or_default();
    let mut floods = [const { None }; 16];
    let mut places = floods.iter_mut();
    for address in devices.split(',').filter(|address| !address.is_empty()) {
        let digits = address.trim_start_matches("0x");
        let Ok(registers) = u64::from_str_radix(digits, 16) else {
            panic!("command line: {address} is no address")
        };
        for number in 0..queues(read32(registers + DEVICE_ID)) {
            if let Some(place) = places.next() {
                *place = Some(Flood::new(registers, number));
            }
        }
    }
    if info.option("mode") == Some("reset") {
        println!("flooding");
        loop {
            floods
                .iter()
                .flatten()
                .for_each(|flood| flood.break_rules(&memory));
        }
    }
    for (index, flood) in floods.iter().flatten().enumerate() {
        let before = floods[..index].iter().flatten();
        if before
            .last()
            .is_none_or(|other| other.registers != flood.registers)
        {
            flood.negotiate();
        }
        flood.set_up(&memory);
    }
    floods.iter().flatten().for_each(Flood::go);
    println!("flooding");
    let out = info.number("out") == Some(1);
    loop {
        floods.iter().flatten().for_each(Flood::again);
        if out {
            (0..32).for_each(|_| serial::write(b"0123456789abcdef"));
        }
    }
}

/// Queues that are flooded, by the type of device: both of an interface, inflation of a balloon, one of others.
fn queues(kind: u32) -> u32 {
    if kind == 1 { 2 } else { 1 }
}

impl Memory {
    fn new() -> Self {
        let memory = Self {
            header: take_pages(1),
            table: take_pages(1),
            data: take_pages(PIECE_BYTES / PAGE_BYTES),
            pages: take_pages(PAGES * 4 / PAGE_BYTES),
        };
        // A read from the start of the disk (§5.2.6).
        describe(memory.table, 0, (memory.header, 16, NEXT, 1));
        for piece in 1..=PIECES {
            let entry = (
                memory.data,
                PIECE_BYTES as u32,
                WRITE | NEXT,
                piece as u16 + 1,
            );
            describe(memory.table, piece, entry);
        }
        let status = (memory.header + 16, 1, WRITE, 0);
        describe(memory.table, PIECES + 1, status);
        for page in 0..PAGES {
            let number = (memory.data / PAGE_BYTES + page % 64) as u32;
            // SAFETY: in the pages that are this list's.
            unsafe { write32(memory.pages + 4 * page, number) }
        }
        memory
    }
}

fn describe(table: u64, entry: u64, (address, bytes, flags, next): (u64, u32, u16, u16)) {
    let at = table + 16 * entry;
    // SAFETY: a table is in pages of its own.
    unsafe {
        write64(at, address);
        write32(at + 8, bytes);
        write16(at + 12, flags);
        write16(at + 14, next);
    }
}

impl Flood {
    fn new(registers: u64, number: u32) -> Self {
        let flood = Self {
            registers,
            number,
            size: 0,
            rings: take_pages(6),
        };
        flood.write(0x30, number);
        let size = read32(registers + SIZE_MAX) as u16;
        Self { size, ..flood }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: a register of a device.
        unsafe { write32(self.registers + register, value) }
    }

    fn avail(&self) -> u64 {
        self.rings + 2 * PAGE_BYTES
    }

    fn used(&self) -> u64 {
        self.rings + 3 * PAGE_BYTES
    }

    fn negotiate(&self) {
        self.write(STATUS, 0);
        while read32(self.registers + STATUS) != 0 {
            core::hint::spin_loop();
        }
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        for (half, features) in (0..).zip(FEATURES) {
            self.write(0x24, half);
            self.write(0x20, features);
        }
        self.write(STATUS, 11);
    }

    /// Fills the queue, all but the index.
    fn set_up(&self, memory: &Memory) {
        for address in (self.rings..self.rings + 6 * PAGE_BYTES).step_by(8) {
            // SAFETY: in the pages that are this queue's, and the device has let go of them.
            unsafe { write64(address, 0) }
        }
        for entry in 0..u64::from(self.size) {
            describe(self.rings, entry, self.request(memory));
            // SAFETY: in the ring.
            unsafe { write16(self.avail() + 4 + 2 * entry, entry as u16) }
        }
        self.write(0x30, self.number);
        self.write(0x38, self.size.into());
        for (register, address) in [
            (0x80, self.rings),
            (0x90, self.avail()),
            (0xa0, self.used()),
        ] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x44, 1);
    }

    fn request(&self, memory: &Memory) -> (u64, u32, u16, u16) {
        match (read32(self.registers + DEVICE_ID), self.number) {
            // Buffers for frames, and frames of zeroes behind their headers.
            (1, 0) => (memory.data, 65562, WRITE, 0),
            (1, _) => (memory.pages + PAGE_BYTES, 12 + 1514, 0, 0),
            (2, _) => (memory.table, 16 * (PIECES as u32 + 2), INDIRECT, 0),
            (5, _) => (memory.pages, 4 * PAGES as u32, 0, 0),
            _ => (memory.data, 4096, WRITE, 0),
        }
    }

    fn go(&self) {
        self.write(STATUS, 15);
        self.again();
    }

    /// Makes what was answered available again.
    fn again(&self) {
        let index = read16(self.used() + 2).wrapping_add(self.size);
        if index != read16(self.avail() + 2) {
            // SAFETY: in the ring.
            unsafe { write16(self.avail() + 2, index) }
            self.write(NOTIFY, self.number);
        }
    }

    /// From nothing to a queue whose only request is none, and that the device complains of.
    fn break_rules(&self, memory: &Memory) {
        self.negotiate();
        self.set_up(memory);
        self.write(STATUS, 15);
        // SAFETY: in the ring.
        unsafe {
            write16(self.avail() + 4, 500);
            write16(self.avail() + 2, 1);
        }
        self.write(NOTIFY, self.number);
        for _ in 0..1000 {
            core::hint::spin_loop();
        }
    }
}
