//! Asks of each of `devices=ADDRESS,...` as much as all of its queues hold, of the largest requests that there are, and
//! again as soon as they are answered; with `out=1` the serial port is flooded as well. Prints `flooding` once all have
//! been asked. With `reset=1` it resets each device once when it gets a key, between `resetting` and `reset`, and asks no
//! more. With `mode=reset` it resets each device instead, as fast as it can, and breaks the rules in between. Never ends.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::{PAGE_BYTES, take_pages};
use kvmlet_guests::mmio::{read16, write16, write32, write64};
use kvmlet_guests::raw_device::{
    CONFIG, DEVICE_ID, INDIRECT, NEXT, NOTIFY, QUEUE_SELECT, RawDevice, SIZE_MAX, STATUS, WRITE,
    describe,
};
use kvmlet_guests::{println, serial};

kvmlet_guests::program!(run);

/// Pieces of data in a request to a disk, and the size of each.
const PIECES: u64 = 126;
const PIECE_BYTES: u64 = 4 << 20;
/// Numbers of pages in a request to a balloon.
const PAGES: u64 = 4096;

/// A queue whose requests are all the same.
struct Flood {
    device: RawDevice,
    number: u32,
    size: u16,
    rings: u64,
}

/// What all requests point to.
struct Memory {
    header: u64,
    /// Indirect tables of a request to a disk, and of a command to an interface.
    table: u64,
    command: u64,
    /// A frame of zeroes.
    frame: u64,
    data: u64,
    pages: u64,
}

fn run(info: &BootInfo) -> u8 {
    let memory = Memory::new();
    let devices = info.option("devices").into_iter();
    let mut floods = [const { None }; 16];
    let mut places = floods.iter_mut();
    for device in devices.flat_map(RawDevice::named) {
        for number in queues(device) {
            if let Some(place) = places.next() {
                *place = Some(Flood::new(device, number));
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
            .is_none_or(|other| other.device != flood.device)
        {
            flood.negotiate();
        }
        flood.set_up(&memory);
    }
    floods.iter().flatten().for_each(Flood::go);
    println!("flooding");
    if info.number("reset") == Some(1) {
        serial::take_input();
        while serial::try_read().is_none() {
            floods.iter().flatten().for_each(Flood::again);
        }
        println!("resetting");
        let firsts = floods.iter().flatten().filter(|flood| flood.number == 0);
        firsts.for_each(|flood| flood.device.write(STATUS, 0));
        println!("reset");
        loop {
            core::hint::spin_loop();
        }
    }
    let out = info.number("out") == Some(1);
    loop {
        floods.iter().flatten().for_each(Flood::again);
        if out {
            (0..32).for_each(|_| serial::write(b"0123456789abcdef"));
        }
    }
}

/// All queues of a device.
fn queues(device: RawDevice) -> impl Iterator<Item = u32> {
    let kind = device.read(DEVICE_ID);
    let count = match kind {
        // Pairs (0 where there can be no more than one), and the control queue.
        1 => 2 * (device.read(CONFIG + 8) & 0xffff).max(1) + 1,
        2 => device.read(CONFIG + 32) >> 16,
        5 => 5,
        _ => 1,
    };
    // A balloon's hints are for nobody.
    (0..count).filter(move |number| (kind, *number) != (5, 3))
}

/// What a device must agree to, so that it serves all of its queues.
fn features(kind: u32) -> u32 {
    match kind {
        // MRG_RXBUF, CTRL_VQ, MQ (virtio 1.2 §5.1.3).
        1 => 1 << 15 | 1 << 17 | 1 << 22,
        // MQ (§5.2.3).
        2 => 1 << 12,
        // STATS_VQ, PAGE_REPORTING (§5.5.3).
        5 => 1 << 1 | 1 << 5,
        _ => 0,
    }
}

impl Memory {
    fn new() -> Self {
        let memory = Self {
            header: take_pages(1),
            table: take_pages(1),
            command: take_pages(1),
            frame: take_pages(1),
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
        // Class and command 0, which is none that the device knows, and its answer.
        describe(memory.command, 0, (memory.header + 64, 2, NEXT, 1));
        describe(memory.command, 1, (memory.header + 80, 1, WRITE, 0));
        for page in 0..PAGES {
            let number = (memory.data / PAGE_BYTES + page % 64) as u32;
            // SAFETY: in the pages that are this list's.
            unsafe { write32(memory.pages + 4 * page, number) }
        }
        memory
    }
}

impl Flood {
    fn new(device: RawDevice, number: u32) -> Self {
        device.write(QUEUE_SELECT, number);
        Self {
            device,
            number,
            size: device.read(SIZE_MAX) as u16,
            rings: take_pages(6),
        }
    }

    fn avail(&self) -> u64 {
        self.rings + 2 * PAGE_BYTES
    }

    fn used(&self) -> u64 {
        self.rings + 3 * PAGE_BYTES
    }

    fn negotiate(&self) {
        self.device.write(STATUS, 0);
        while self.device.read(STATUS) != 0 {
            core::hint::spin_loop();
        }
        self.device
            .negotiate_with(features(self.device.read(DEVICE_ID)));
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
        let parts = [self.rings, self.avail(), self.used()];
        self.device
            .place_queue(self.number, self.size.into(), parts);
    }

    fn request(&self, memory: &Memory) -> (u64, u32, u16, u16) {
        match (self.device.read(DEVICE_ID), self.number) {
            // A command, buffers for frames, and frames behind their headers.
            (1, number) if queues(self.device).last() == Some(number) => {
                (memory.command, 32, INDIRECT, 0)
            }
            (1, number) if number % 2 == 0 => (memory.data, 65562, WRITE, 0),
            (1, _) => (memory.frame, 12 + 1514, 0, 0),
            (2, _) => (memory.table, 16 * (PIECES as u32 + 2), INDIRECT, 0),
            // Reports, and what is as good as statistics.
            (5, 4) => (memory.data, PIECE_BYTES as u32, WRITE, 0),
            (5, 2) => (memory.pages, 640, 0, 0),
            (5, _) => (memory.pages, 4 * PAGES as u32, 0, 0),
            _ => (memory.data, 4096, WRITE, 0),
        }
    }

    fn go(&self) {
        self.device.write(STATUS, 15);
        self.again();
    }

    /// Makes what was answered available again.
    fn again(&self) {
        let index = read16(self.used() + 2).wrapping_add(self.size);
        if index != read16(self.avail() + 2) {
            // SAFETY: in the ring.
            unsafe { write16(self.avail() + 2, index) }
            self.device.write(NOTIFY, self.number);
        }
    }

    /// From nothing to a queue whose only request is none, and that the device complains of.
    fn break_rules(&self, memory: &Memory) {
        self.negotiate();
        self.set_up(memory);
        self.device.write(STATUS, 15);
        // SAFETY: in the ring.
        unsafe {
            write16(self.avail() + 4, 500);
            write16(self.avail() + 2, 1);
        }
        self.device.write(NOTIFY, self.number);
        for _ in 0..1000 {
            core::hint::spin_loop();
        }
    }
}
