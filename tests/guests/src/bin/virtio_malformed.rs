//! Breaks the rules of virtqueues (virtio 1.2 §2.7) in every way there is, with each of `devices=ADDRESS,...`:
//! an entropy source, a disk or a network device. Each time the device must ask for a reset, and after it answer
//! a request that is in order. Prints a line for each device, and ends with 0.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::take_pages;
use kvmlet_guests::mmio::{read16, read32, write16, write32, write64};
use kvmlet_guests::println;
use kvmlet_guests::raw_device::{
    DEVICE_ID, INDIRECT, NEXT, NOTIFY, QUEUE_PARTS, QUEUE_READY, QUEUE_SIZE, RawDevice, STATUS,
    WRITE, describe,
};

kvmlet_guests::program!(run);

/// A bit of the status (§2.1).
const NEEDS_RESET: u32 = 64;
const ENTRIES: u64 = 16;
/// More descriptors than a queue of any of these devices can have entries. The last lies in the page behind its table's.
const LONG: u64 = 257;

struct Driver {
    device: RawDevice,
    queue: u32,
    table: u64,
    avail: u64,
    used: u64,
    indirect: u64,
    buffers: u64,
}

/// A way to break the rules.
type Breakage = (&'static str, fn(&Driver));

const BREAKAGES: [Breakage; 11] = [
    ("a loop", |d| {
        describe(d.table, 0, (d.buffers, 4, WRITE | NEXT, 1));
        describe(d.table, 1, (d.buffers, 4, WRITE | NEXT, 0));
        d.offer(0);
    }),
    ("an address outside RAM", |d| d.send(1 << 40, 4)),
    ("an address that wraps", |d| d.send(u64::MAX - 1, 4)),
    ("an address of a device", |d| d.send(d.device.0, 4)),
    ("more bytes than there are", |d| d.send(d.buffers, u32::MAX)),
    ("a readable descriptor behind a writable one", |d| {
        describe(d.table, 0, (d.buffers, 4, WRITE | NEXT, 1));
        describe(d.table, 1, (d.buffers, 4, 0, 0));
        d.offer(0);
    }),
    ("a next outside the table", |d| {
        describe(d.table, 0, (d.buffers, 4, WRITE | NEXT, 999));
        d.offer(0);
    }),
    ("indirect within indirect", |d| {
        describe(d.indirect, 0, (d.buffers, 16, INDIRECT, 0));
        describe(d.table, 0, (d.indirect, 16, INDIRECT, 0));
        d.offer(0);
    }),
    ("a chain longer than any queue", |d| {
        for entry in 0..LONG {
            let more = if entry + 1 < LONG { NEXT } else { 0 };
            describe(
                d.indirect,
                entry,
                (d.buffers, 1, WRITE | more, entry as u16 + 1),
            );
        }
        describe(d.table, 0, (d.indirect, LONG as u32 * 16, INDIRECT, 0));
        d.offer(0);
    }),
    ("a head outside the table", |d| d.offer(500)),
    ("an index too far ahead", |d| {
        d.poke16(d.avail + 2, 1000);
        d.device.write(NOTIFY, d.queue);
    }),
];

fn run(info: &BootInfo) -> u8 {
    let memory = take_pages(5);
    for device in RawDevice::named(info.option("devices").unwrap_or_default()) {
        let kind = device.read(DEVICE_ID);
        let driver = Driver {
            device,
            // Devices for networks and sockets look at what they are to send at once.
            queue: u32::from(kind == 1 || kind == 19),
            table: memory,
            avail: memory + 4096,
            used: memory + 2 * 4096,
            indirect: memory + 3 * 4096,
            buffers: memory + 4 * 4096,
        };
        for (name, breakage) in BREAKAGES {
            driver.set_up();
            breakage(&driver);
            while device.read(STATUS) & NEEDS_RESET == 0 {
                core::hint::spin_loop();
            }
            driver.set_up();
            driver.answer(kind, name);
        }
        // A live queue stays where it is.
        driver.set_up();
        device.write(QUEUE_PARTS[0], 0x7000);
        device.write(QUEUE_SIZE, 8);
        device.write(QUEUE_READY, 1);
        driver.answer(kind, "a queue that was to move");
        device.write(STATUS, 0);
        println!("device {kind}: {} ways", BREAKAGES.len() + 1);
    }
    0
}

impl Driver {
    fn poke16(&self, address: u64, value: u16) {
        // SAFETY: in the pages that are this driver's.
        unsafe { write16(address, value) }
    }

    /// Resets the device and sets its queue up, with empty rings.
    fn set_up(&self) {
        self.device.write(STATUS, 0);
        assert!(
            self.device.read(STATUS) == 0,
            "a device that cannot be reset"
        );
        for address in (self.table..self.buffers).step_by(8) {
            // SAFETY: in the pages that are this driver's, and the device has let go of them.
            unsafe { write64(address, 0) }
        }
        self.device.negotiate();
        let parts = [self.table, self.avail, self.used];
        self.device.place_queue(self.queue, ENTRIES as u32, parts);
        self.device.write(STATUS, 15);
        assert!(
            self.device.read(STATUS) == 15,
            "a device that cannot be set up"
        );
    }

    /// Makes the first request available.
    fn offer(&self, head: u16) {
        self.poke16(self.avail + 4, head);
        self.poke16(self.avail + 2, 1);
        self.device.write(NOTIFY, self.queue);
    }

    fn send(&self, address: u64, bytes: u32) {
        describe(self.table, 0, (address, bytes, WRITE, 0));
        self.offer(0);
    }

    /// A request that is in order, and its answer.
    fn answer(&self, kind: u32, after: &str) {
        let data = self.buffers + 64;
        match kind {
            // A frame behind its header of zeroes.
            1 => describe(self.table, 0, (self.buffers, 12 + 60, 0, 0)),
            // Which disk are you (§5.2.6, type 8)?
            2 => {
                // SAFETY: a buffer of this driver's.
                unsafe { write32(self.buffers, 8) };
                describe(self.table, 0, (self.buffers, 16, NEXT, 1));
                describe(self.table, 1, (data, 20, WRITE | NEXT, 2));
                describe(self.table, 2, (data + 20, 1, WRITE, 0));
            }
            // A packet of zeroes, which is refused.
            19 => describe(self.table, 0, (self.buffers, 44, 0, 0)),
            // Random bytes.
            4 => describe(self.table, 0, (data, 32, WRITE, 0)),
            _ => panic!("device type {kind} is not known here"),
        }
        self.offer(0);
        while read16(self.used + 2) == 0 {
            assert!(self.device.read(STATUS) == 15, "after {after}: no answer");
        }
        assert!(read16(self.used + 2) == 1 && read32(self.used + 4) == 0);
    }
}
