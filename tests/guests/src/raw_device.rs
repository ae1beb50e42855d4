//! A virtio device as its registers (virtio 1.2 §4.2.2), for programs that do with it what no driver does.

use crate::mmio::{read32, write16, write32, write64};

/// Offset of the register that tells the type of device.
pub const DEVICE_ID: u64 = 0x08;
/// Most entries of the selected queue.
pub const SIZE_MAX: u64 = 0x34;
/// Tells the device that a queue has something for it.
pub const NOTIFY: u64 = 0x50;
/// The device's status.
pub const STATUS: u64 = 0x70;
/// Where the device's configuration space begins.
pub const CONFIG: u64 = 0x100;
/// Which queue the queue's registers are about.
pub const QUEUE_SELECT: u64 = 0x30;
/// Its size.
pub const QUEUE_SIZE: u64 = 0x38;
/// Whether it is set up.
pub const QUEUE_READY: u64 = 0x44;
/// Lower halves of where its parts are: descriptors, avail ring, used ring; the upper halves follow each.
pub const QUEUE_PARTS: [u64; 3] = [0x80, 0x90, 0xa0];

/// Flag of a descriptor (§2.7.5): another one follows.
pub const NEXT: u16 = 1;
/// The device writes there.
pub const WRITE: u16 = 2;
/// It is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Feature bit 28, indirect descriptors, and bit 32, VERSION_1: the lower bit of the upper half.
const FEATURES: [u32; 2] = [1 << 28, 1];

/// A device by the address of its registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawDevice(pub u64);

impl RawDevice {
    /// The devices of the option `devices=ADDRESS,...`; a word that is no address ends the program.
    pub fn named(option: &str) -> impl Iterator<Item = Self> + '_ {
        option.split(',').map(|address| {
            let digits = address.strip_prefix("0x").unwrap_or(address);
            match u64::from_str_radix(digits, 16) {
                Ok(registers) => Self(registers),
                Err(_) => panic!("command line: devices= has {address}, which is no address"),
            }
        })
    }

    /// Reads a register.
    pub fn read(self, register: u64) -> u32 {
        read32(self.0 + register)
    }

    /// Writes a register.
    pub fn write(self, register: u64, value: u32) {
        // SAFETY: a register of a device.
        unsafe { write32(self.0 + register, value) }
    }

    /// From a device that was reset to one that knows its features.
    pub fn negotiate(self) {
        self.negotiate_with(0);
    }

    /// The same, with what it offers of these features of its type.
    pub fn negotiate_with(self, own: u32) {
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        self.write(0x14, 0);
        let own = own & self.read(0x10);
        for (half, features) in (0..).zip([FEATURES[0] | own, FEATURES[1]]) {
            self.write(0x24, half);
            self.write(0x20, features);
        }
        self.write(STATUS, 11);
    }

    /// Tells it where a queue is: descriptors, avail ring, used ring.
    pub fn place_queue(self, number: u32, size: u32, parts: [u64; 3]) {
        self.write(QUEUE_SELECT, number);
        self.write(QUEUE_SIZE, size);
        for (register, address) in QUEUE_PARTS.into_iter().zip(parts) {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
    }
}

/// Writes an entry of a table of descriptors: address, bytes, flags, next.
pub fn describe(table: u64, entry: u64, (address, bytes, flags, next): (u64, u32, u16, u16)) {
    let at = table + 16 * entry;
    // SAFETY: a table is in pages of its own, which came from the heap.
    unsafe {
        write64(at, address);
        write32(at + 8, bytes);
        write16(at + 12, flags);
        write16(at + 14, next);
    }
}
