//! Breaks the rules of virtqueues (virtio 1.2 §2.7) in every way there is, with each of `devices=ADDRESS,...`:
//! an entropy source, a disk or a network device. Each time the device must ask for a reset, and after it answer
//! a request that is in order. Prints a line for each device, and ends with 0.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::take_pages;
use kvmlet_guests::mmio::{read16, read32, write16, write32, write64};
use kvmlet_guests::println;

kvmlet_guests::program!(run);

/// Registers (§4.2.2).
const DEVICE_ID: u64 = 0x08;
const STATUS: u64 = 0x70;
const NOTIFY: u64 = 0x50;
const NEEDS_RESET: u32 = 64;
/// Flags of a descriptor (§2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const ENTRIES: u64 = 16;
/// More descriptors than a queue of any of these devices can have entries. The last lies in the page behind its table's.
const LONG: u64 = 257;
/// Feature bit 28, indirect descriptors, and bit 32, VERSION_1: the lower bit of the upper half.
const FEATURES: [u32; 2] = [1 << 28, 1];

struct Driver {
    registers: u64,
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
        d.describe(d.table, 0, (d.buffers, 4, WRITE | NEXT, 1));
        d.describe(d.table, 1, (d.buffers, 4, WRITE | NEXT, 0));
        d.offer(0);
    }),
    ("an address outside RAM", |d| d.send(1 << 40, 4)),
    ("an address that wraps", |d| d.send(u64::MAX - 1, 4)),
    ("an address of a device", |d| d.send(d.registers, 4)),
    ("more bytes than there are", |d| d.send(d.buffers, u32::MAX)),
    ("a readable descriptor behind a writable one", |d| {
        d.describe(d.table, 0, (d.buffers, 4, WRITE | NEXT, 1));
        d.describe(d.table, 1, (d.buffers, 4, 0, 0));
        d.offer(0);
    }),
    ("a next outside the table", |d| {
        d.describe(d.table, 0, (d.buffers, 4, WRITE | NEXT, 999));
        d.offer(0);
    }),
    ("indirect within indirect", |d| {
        d.describe(d.indirect, 0, (d.buffers, 16, INDIRECT, 0));
        d.describe(d.table, 0, (d.indirect, 16, INDIRECT, 0));
        d.offer(0);
    }),
    ("a chain longer than any queue", |d| {
        for entry in 0..LONG {
            let more = if entry + 1 < LONG { NEXT } else { 0 };
            d.describe(
                d.indirect,
                entry,
                (d.buffers, 1, WRITE | more, entry as u16 + 1),
            );
        }
        d.describe(d.table, 0, (d.indirect, LONG as u32 * 16, INDIRECT, 0));
        d.offer(0);
    }),
    ("a head outside the table", |d| d.offer(500)),
    ("an index too far ahead", |d| {
        d.poke16(d.avail + 2, 1000);
        d.write(NOTIFY, d.queue);
    }),
];

fn run(info: &BootInfo) -> u8 {
    let memory = take_pages(5);
    for address in info.option("devices").unwrap_or_default().split(',') {
        let digits = address.strip_prefix("0x").unwrap_or(address);
        let Ok(registers) = u64::from_str_radix(digits, 16) else {
            panic!("command line: devices= has no address but {address}")
        };
        let kind = read32(registers + DEVICE_ID);
        let driver = Driver {
            registers,
            // A network device looks at what it is to send at once.
            queue: u32::from(kind == 1),
            table: memory,
            avail: memory + 4096,
            used: memory + 2 * 4096,
            indirect: memory + 3 * 4096,
            buffers: memory + 4 * 4096,
        };
        for (name, breakage) in BREAKAGES {
            driver.set_up();
            breakage(&driver);
            while driver.read(STATUS) & NEEDS_RESET == 0 {
                core::hint::spin_loop();
            }
            driver.set_up();
            driver.answer(kind, name);
        }
        // A live queue stays where it is.
        driver.set_up();
        driver.write(0x80, 0x7000);
        driver.write(0x38, 8);
        driver.write(0x44, 1);
        driver.answer(kind, "a queue that was to move");
        driver.write(STATUS, 0);
        println!("device {kind}: {} ways", BREAKAGES.len() + 1);
    }
    0
}

impl Driver {
    fn read(&self, register: u64) -> u32 {
        read32(self.registers + register)
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: a register of a device.
        unsafe { write32(self.registers + register, value) }
    }

    fn poke16(&self, address: u64, value: u16) {
        // SAFETY: in the pages that are this driver's.
        unsafe { write16(address, value) }
    }

    /// Resets the device and sets its queue up, with empty rings.
    fn set_up(&self) {
        self.write(STATUS, 0);
        assert!(self.read(STATUS) == 0, "a device that cannot be reset");
        for address in (self.table..self.buffers).step_by(8) {
            // SAFETY: in the pages that are this driver's, and the device has let go of them.
            unsafe { write64(address, 0) }
        }
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        for (half, features) in (0..).zip(FEATURES) {
            self.write(0x24, half);
            self.write(0x20, features);
        }
        self.write(STATUS, 11);
        self.write(0x30, self.queue);
        self.write(0x38, ENTRIES as u32);
        for (register, address) in [(0x80, self.table), (0x90, self.avail), (0xa0, self.used)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x44, 1);
        self.write(STATUS, 15);
        assert!(self.read(STATUS) == 15, "a device that cannot be set up");
    }

    fn describe(
        &self,
        table: u64,
        entry: u64,
        (address, bytes, flags, next): (u64, u32, u16, u16),
    ) {
        let at = table + 16 * entry;
        // SAFETY: a table is in the pages that are this driver's.
        unsafe {
            write64(at, address);
            write32(at + 8, bytes);
        }
        self.poke16(at + 12, flags);
        self.poke16(at + 14, next);
    }

    /// Makes the first request available.
    fn offer(&self, head: u16) {
        self.poke16(self.avail + 4, head);
        self.poke16(self.avail + 2, 1);
        self.write(NOTIFY, self.queue);
    }

    fn send(&self, address: u64, bytes: u32) {
        self.describe(self.table, 0, (address, bytes, WRITE, 0));
        self.offer(0);
    }

    /// A request that is in order, and its answer.
    fn answer(&self, kind: u32, after: &str) {
        let data = self.buffers + 64;
        match kind {
            // A frame behind its header of zeroes.
            1 => self.describe(self.table, 0, (self.buffers, 12 + 60, 0, 0)),
            // Which disk are you (§5.2.6, type 8)?
            2 => {
                // SAFETY: a buffer of this driver's.
                unsafe { write32(self.buffers, 8) };
                self.describe(self.table, 0, (self.buffers, 16, NEXT, 1));
                self.describe(self.table, 1, (data, 20, WRITE | NEXT, 2));
                self.describe(self.table, 2, (data + 20, 1, WRITE, 0));
            }
            // Random bytes.
            4 => self.describe(self.table, 0, (data, 32, WRITE, 0)),
            _ => panic!("device type {kind} is not known here"),
        }
        self.offer(0);
        while read16(self.used + 2) == 0 {
            assert!(self.read(STATUS) == 15, "after {after}: no answer");
        }
        assert!(read16(self.used + 2) == 1 && read32(self.used + 4) == 0);
    }
}
