//! Requests: descriptors and what they point to.

use super::Driver;
use super::accounts::ENTRIES;
use super::ram;
use super::subject::Part;

/// Descriptor flags (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// The longest chain in an indirect table.
const LONGEST: usize = 8;
/// Lengths at which devices do different things.
const LENGTHS: [u32; 8] = [0, 1, 12, 16, 20, 512, 4096, 65536];

/// A descriptor: address, bytes, flags, next.
type Descriptor = (u64, u32, u16, u16);

impl Driver<'_> {
    /// Makes a request that the device can answer. By the rules its descriptors are free, its buffers are in RAM, and
    /// the device is told if it wants to be.
    pub fn ask(&mut self, queue: usize, [first, low, high]: [u8; 3], choice: [u8; 8]) {
        let by_the_rules = self.manners.by_the_rules;
        let mut parts = self.subject.request(queue as u32, choice);
        let indirect = self.manners.indirect() && high & 1 == 1;
        parts.truncate(if indirect { LONGEST } else { ENTRIES.into() });
        let count = if indirect { 1 } else { parts.len() };
        let descriptors = match by_the_rules {
            true => self.queues[queue].free(count),
            false => Some(
                (0..count as u16)
                    .map(|index| (u16::from(first) + index) % ENTRIES)
                    .collect(),
            ),
        };
        let Some(descriptors) = descriptors.filter(|list: &Vec<u16>| !list.is_empty()) else {
            return;
        };
        let seed = u16::from_le_bytes([low, high]);
        let (rings, head) = (self.queues[queue].rings, descriptors[0]);
        let table = ram::table_of(queue as u32, head);
        let writable = parts
            .iter()
            .filter(|part| part.writable)
            .map(|part| u64::from(part.bytes))
            .sum();
        for (index, part) in (0u16..).zip(&parts) {
            let address = self.place_part(part, seed.wrapping_add(index * 0x6b5));
            let more = usize::from(index) + 1 < parts.len();
            let flags = u16::from(part.writable) * WRITE | u16::from(more) * NEXT;
            let (at, next) = match indirect {
                true => (table + 16 * u64::from(index), index + 1),
                false => {
                    let next = descriptors.get(usize::from(index) + 1).copied();
                    let entry = descriptors[usize::from(index)];
                    (rings + 16 * u64::from(entry), next.unwrap_or(0))
                }
            };
            self.describe(at, (address, part.bytes, flags, next));
        }
        if indirect {
            let bytes = parts.len() as u32 * 16;
            self.describe(rings + 16 * u64::from(head), (table, bytes, INDIRECT, 0));
            // A driver that uses descriptors twice has the device read halves of two: buffers for a table.
            self.rings_are_clean &= by_the_rules;
        }
        self.offer(queue, descriptors, by_the_rules.then_some(writable));
    }

    /// Fills a buffer; returns where it is.
    fn place_part(&mut self, part: &Part, seed: u16) -> u64 {
        let place = ram::place(seed);
        let address = match self.manners.by_the_rules {
            true => {
                ram::fitting(place, part.bytes.into()) / self.subject.unit() * self.subject.unit()
            }
            false => place,
        };
        self.put(address, &part.contents);
        if let (Some(shadow), true) = (&mut self.shadow, part.writable) {
            shadow.give(address, part.bytes.into());
        }
        address
    }

    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        ram::put(address, bytes);
        if let Some(shadow) = &mut self.shadow {
            shadow.wrote(address, bytes);
        }
    }

    /// A descriptor as the fuzzer likes it, in a queue's own table or in an indirect one.
    pub fn describe_anything(&mut self, queue: usize, [entry, low, high]: [u8; 3], value: [u8; 8]) {
        let seed = u16::from_le_bytes([value[0], value[1]]);
        let kind = high;
        let mut descriptor = (
            ram::place(seed),
            LENGTHS[usize::from(value[2] & 7)] + u32::from(value[2] >> 5),
            u16::from(value[6] & 3),
            u16::from(value[7] & 31),
        );
        match kind & 3 {
            0 => descriptor.0 = u64::from_le_bytes(value),
            1 => descriptor.1 = u32::from_le_bytes([value[2], value[3], value[4], value[5]]),
            2 => {
                descriptor.0 = ram::table_of(queue as u32, low.into());
                descriptor.2 |= u16::from(value[6]) & INDIRECT;
            }
            _ => {}
        }
        let (address, bytes, flags, _) = descriptor;
        if flags & INDIRECT != 0 || ram::is_of_rings(address, bytes.into()) {
            self.rings_are_clean = false;
        }
        let at = match kind & 4 {
            0 => self.queues[queue].rings + 16 * u64::from(entry % ENTRIES as u8),
            _ => ram::table_of(queue as u32, low.into()) + 16 * u64::from(entry % LONGEST as u8),
        };
        self.describe(at, descriptor);
    }

    fn describe(&mut self, at: u64, (address, bytes, flags, next): Descriptor) {
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&bytes.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..].copy_from_slice(&next.to_le_bytes());
        self.put(at, &descriptor);
    }

    /// A chain of any buffers; which of them are writable is the fuzzer's choice.
    pub fn ask_anything(&mut self, queue: usize, [shape, writable, high]: [u8; 3], value: [u8; 8]) {
        let count = u16::from(shape & 3) + 1;
        let first = u16::from(shape >> 4);
        let rings = self.queues[queue].rings;
        for index in 0..count {
            let bytes = LENGTHS[usize::from(value[usize::from(index)] & 7)];
            let seed = u16::from_le_bytes([value[4 + usize::from(index)], high]);
            let more = u16::from(index + 1 < count) * NEXT;
            let write = u16::from(writable >> index & 1) * WRITE;
            let entry = (first + index) % ENTRIES;
            let descriptor = (ram::place(seed), bytes, more | write, (entry + 1) % ENTRIES);
            self.describe(rings + 16 * u64::from(entry), descriptor);
        }
        self.offer(queue, vec![first], None);
    }

    /// Makes a chain available.
    pub fn offer(&mut self, queue: usize, descriptors: Vec<u16>, writable: Option<u64>) {
        // One more than the ring has room for goes where another may not have been read yet.
        self.rings_are_clean &= self.queues[queue].open() < ENTRIES.into();
        let event_idx = self.manners.event_idx();
        let wanted = self.queues[queue].offer(descriptors, writable, event_idx);
        if wanted || !self.manners.by_the_rules {
            self.write(0x50, queue as u32);
        }
    }
}
