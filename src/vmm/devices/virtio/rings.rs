//! The parts of a queue (virtio 1.2 §2.7), found once in guest memory: what is read of them, and what is written to them.
//!
//! A driver may change them at any time. So each word is read once for each use, and indices are taken modulo the size.

use crate::memory::GuestRam;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use vm_memory::{GuestAddress, VolatileSlice};

/// Bytes of a descriptor.
const DESCRIPTOR_BYTES: usize = 16;
/// In front of the entries of the other two parts: flags and an index, of 16 bits each.
const HEADER_BYTES: usize = 4;
const AVAIL_BYTES: usize = 2;
const USED_BYTES: usize = 8;

/// Where a driver has put a queue's parts: guest physical addresses, and the number of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub size: u16,
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
}

/// An entry of a descriptor table (§2.7.5), as it was when it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub address: GuestAddress,
    pub bytes: u32,
    pub flags: u16,
    pub next: u16,
}

/// A descriptor table in guest memory: a queue's own, or an indirect one.
#[derive(Clone, Copy)]
pub(super) struct Table<'a>(VolatileSlice<'a>);

impl<'a> Table<'a> {
    /// The table in those bytes, if they are whole descriptors in RAM.
    pub fn find(ram: &'a GuestRam, start: GuestAddress, bytes: u32) -> Option<Self> {
        let bytes = bytes as usize;
        let entries = bytes / DESCRIPTOR_BYTES;
        let fits = bytes.is_multiple_of(DESCRIPTOR_BYTES) && entries <= usize::from(u16::MAX);
        fits.then(|| ram.slice(start, bytes)).flatten().map(Self)
    }

    pub fn entries(&self) -> u16 {
        (self.0.len() / DESCRIPTOR_BYTES) as u16
    }

    /// An entry, if there is one of that index.
    pub fn entry(&self, index: u16) -> Option<Descriptor> {
        if index >= self.entries() {
            return None;
        }
        let (address, rest) = self.words(usize::from(index) * DESCRIPTOR_BYTES);
        Some(Descriptor {
            address: GuestAddress(address),
            bytes: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        })
    }

    fn words(&self, offset: usize) -> (u64, u64) {
        let start = self.0.ptr_guard_mut().as_ptr().wrapping_add(offset);
        // An indirect table need not be aligned.
        if !(start as usize).is_multiple_of(align_of::<AtomicU64>()) {
            let mut bytes = [[0u8; 8]; 2];
            if let Ok(entry) = self.0.subslice(offset, DESCRIPTOR_BYTES) {
                entry.copy_to(bytes.as_flattened_mut());
            }
            let [address, rest] = bytes.map(u64::from_le_bytes);
            return (address, rest);
        }
        let word = start.cast::<u64>();
        // SAFETY: both words are within the slice, as `entry` has looked, and aligned; who else writes to them is no
        // thread of Rust's.
        let words = unsafe { [word, word.wrapping_add(1)].map(|word| AtomicU64::from_ptr(word)) };
        let [address, rest] = words.map(|word| u64::from_le(word.load(Ordering::Relaxed)));
        (address, rest)
    }
}

/// The parts of a queue, in host memory.
pub(super) struct Rings {
    /// Keeps them mapped.
    ram: GuestRam,
    size: u16,
    descriptors: NonNull<u8>,
    driver: NonNull<u8>,
    device: NonNull<u8>,
}

// SAFETY: the addresses are of guest memory, which is mapped for all threads, and which all of them may access.
unsafe impl Send for Rings {}
// SAFETY: as above.
unsafe impl Sync for Rings {}

impl Rings {
    /// Finds the parts, if all that the driver has said is right: the size is a power of two, and each part is aligned
    /// and in RAM.
    pub fn find(ram: &GuestRam, places: Places) -> Option<Self> {
        if !places.size.is_power_of_two() {
            return None;
        }
        let entries = usize::from(places.size);
        let part = |address: u64, align: u64, bytes: usize| {
            let is_aligned = address.is_multiple_of(align);
            let slice = ram.slice(GuestAddress(address), bytes);
            let slice = slice.filter(|_| is_aligned)?;
            NonNull::new(slice.ptr_guard_mut().as_ptr())
        };
        let descriptors = part(places.descriptors, 16, DESCRIPTOR_BYTES * entries)?;
        // Behind the entries is the index of whoever is notified.
        let driver = part(places.driver, 2, HEADER_BYTES + AVAIL_BYTES * entries + 2)?;
        let device = part(places.device, 4, HEADER_BYTES + USED_BYTES * entries + 2)?;
        Some(Self {
            ram: ram.clone(),
            size: places.size,
            descriptors,
            driver,
            device,
        })
    }

    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    pub fn size(&self) -> u16 {
        self.size
    }

    /// The descriptor table.
    pub fn table(&self) -> Table<'_> {
        let bytes = DESCRIPTOR_BYTES * usize::from(self.size);
        // SAFETY: the part is mapped as long as `ram` lives, and whoever reads it knows that it is volatile.
        Table(unsafe { VolatileSlice::new(self.descriptors.as_ptr(), bytes) })
    }

    /// Where the parts are in this process: descriptors, the driver's, the device's.
    pub fn places(&self) -> [u64; 3] {
        [self.descriptors, self.driver, self.device].map(|part| part.as_ptr() as u64)
    }

    /// The index behind the device's last answer, as it is in memory.
    pub fn device_index(&self) -> u16 {
        u16::from_le(self.of_device(2).load(Ordering::Acquire))
    }

    /// The flags of the driver.
    pub fn driver_flags(&self) -> u16 {
        u16::from_le(self.of_driver(0).load(Ordering::Relaxed))
    }

    /// The index behind the driver's last request. All of these requests are visible then.
    pub fn driver_index(&self) -> u16 {
        u16::from_le(self.of_driver(2).load(Ordering::Acquire))
    }

    /// The head of a request.
    pub fn head(&self, index: u16) -> u16 {
        let entry = HEADER_BYTES + AVAIL_BYTES * self.place(index);
        u16::from_le(self.of_driver(entry).load(Ordering::Relaxed))
    }

    /// The answer that the driver wants to be told of (EVENT_IDX).
    pub fn used_event(&self) -> u16 {
        let end = HEADER_BYTES + AVAIL_BYTES * usize::from(self.size());
        u16::from_le(self.of_driver(end).load(Ordering::Relaxed))
    }

    /// Sets the flags of the device.
    pub fn set_device_flags(&self, flags: u16) {
        self.of_device(0).store(flags.to_le(), Ordering::Relaxed);
    }

    /// Puts an answer in its place; the driver does not see it before it is [published](Self::publish).
    pub fn set_answer(&self, index: u16, head: u16, written: u32) {
        let entry = HEADER_BYTES + USED_BYTES * self.place(index);
        let word = self.device.as_ptr().wrapping_add(entry).cast::<u32>();
        // SAFETY: both words are within the part, which is aligned and is mapped as long as `ram` lives; who else writes
        // to it is no thread of Rust's.
        let [id, bytes] =
            unsafe { [word, word.wrapping_add(1)].map(|word| AtomicU32::from_ptr(word)) };
        id.store(u32::from(head).to_le(), Ordering::Relaxed);
        bytes.store(written.to_le(), Ordering::Relaxed);
    }

    /// Sets the index behind the device's last answer: the driver sees all of them.
    pub fn publish(&self, index: u16) {
        self.of_device(2).store(index.to_le(), Ordering::Release);
    }

    /// Sets the request that the device wants to be told of (EVENT_IDX).
    pub fn set_avail_event(&self, index: u16) {
        let end = HEADER_BYTES + USED_BYTES * usize::from(self.size());
        self.of_device(end).store(index.to_le(), Ordering::Relaxed);
    }

    fn place(&self, index: u16) -> usize {
        usize::from(index & (self.size() - 1))
    }

    fn of_driver(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: all offsets are even and within the part, which is aligned and is mapped as long as `ram` lives; who
        // else writes to it is no thread of Rust's.
        unsafe { AtomicU16::from_ptr(self.driver.as_ptr().wrapping_add(offset).cast()) }
    }

    fn of_device(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.device.as_ptr().wrapping_add(offset).cast()) }
    }
}
