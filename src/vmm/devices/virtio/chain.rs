//! One request: a descriptor chain, checked as a whole before anything of it is used.

use super::broken::Broken;
use super::rings::Table;
use crate::memory::GuestRam;
use vm_memory::{GuestAddress, VolatileSlice};

/// Flags of a descriptor (§2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A piece of guest memory that a descriptor points to. It is in RAM, in one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub address: GuestAddress,
    /// Size in bytes.
    pub bytes: u32,
}

impl Segment {
    /// The memory itself, which the guest may change at any time.
    ///
    /// # Errors
    /// When it is not in RAM, in one region. A [chain's](Chain) are.
    pub fn slice<'a>(&self, memory: &'a GuestRam) -> Result<VolatileSlice<'a>, Broken> {
        let (address, bytes) = (self.address.0, self.bytes);
        let slice = memory.slice(self.address, bytes as usize);
        slice.ok_or(Broken::Address { address, bytes })
    }
}

/// A request from the driver: what the device may read, then what it may write (virtio 1.2 §2.7.4).
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Chain {
    /// The number by which the driver knows the request.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device may read, in order.
    pub fn readable(&self) -> &[Segment] {
        &self.readable
    }

    /// What the device may write, in order.
    pub fn writable(&self) -> &[Segment] {
        &self.writable
    }

    /// Bytes that the device may read.
    pub fn readable_bytes(&self) -> u64 {
        self.readable
            .iter()
            .map(|segment| u64::from(segment.bytes))
            .sum()
    }

    /// Bytes that the device may write.
    pub fn writable_bytes(&self) -> u64 {
        self.writable
            .iter()
            .map(|segment| u64::from(segment.bytes))
            .sum()
    }

    /// Copies from the readable part, from `offset` on; returns how many bytes there were, at most
    /// `buffer`'s size.
    ///
    /// # Errors
    /// Only if memory went away, which it does not.
    pub fn read(&self, memory: &GuestRam, offset: u64, buffer: &mut [u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for part in parts(&self.readable, offset, buffer.len() as u64) {
            let end = done + part.bytes as usize;
            copy(&part.slice(memory)?, &mut buffer[done..end]);
            done = end;
        }
        Ok(done)
    }

    /// Copies into the writable part, from `offset` on; returns how many bytes there was room for.
    ///
    /// # Errors
    /// Only if memory went away, which it does not.
    pub fn write(&self, memory: &GuestRam, offset: u64, bytes: &[u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for part in parts(&self.writable, offset, bytes.len() as u64) {
            let end = done + part.bytes as usize;
            part.slice(memory)?.copy_from(&bytes[done..end]);
            done = end;
        }
        Ok(done)
    }

    /// The pieces of the readable part from `offset` on, `bytes` in all if there are as many.
    pub fn readable_parts(&self, offset: u64, bytes: u64) -> impl Iterator<Item = Segment> + '_ {
        parts(&self.readable, offset, bytes)
    }

    /// The pieces of the writable part from `offset` on, `bytes` in all if there are as many.
    pub fn writable_parts(&self, offset: u64, bytes: u64) -> impl Iterator<Item = Segment> + '_ {
        parts(&self.writable, offset, bytes)
    }

    /// Takes the chain that begins at `head` of a queue's table, keeping this value's allocations. It has no more than
    /// `longest` descriptors.
    pub(super) fn fill<'a>(
        &mut self,
        memory: &'a GuestRam,
        mut table: Table<'a>,
        head: u16,
        longest: u16,
    ) -> Result<(), Broken> {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        let (mut next, mut left, mut is_indirect) = (head, table.entries(), false);
        // §2.7.5.2: no chain is longer than 2^32 bytes.
        let mut room = u32::MAX;
        loop {
            // A table has no more descriptors to follow than entries, or the chain is a loop.
            left = left.checked_sub(1).ok_or(Broken::Chain)?;
            let descriptor = table.entry(next).ok_or(Broken::Chain)?;
            let (address, bytes) = (descriptor.address, descriptor.bytes);
            if descriptor.flags & INDIRECT != 0 {
                // §2.7.5.3.1: one level of them.
                let found = Table::find(memory, address, bytes).filter(|_| !is_indirect);
                table = found.ok_or(Broken::Chain)?;
                (next, left, is_indirect) = (0, table.entries(), true);
                continue;
            }
            room = room.checked_sub(bytes).ok_or(Broken::Chain)?;
            self.add(memory, Segment { address, bytes }, descriptor.flags)?;
            if self.readable.len() + self.writable.len() > usize::from(longest) {
                return Err(Broken::Length);
            }
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            next = descriptor.next;
        }
    }

    fn add(&mut self, memory: &GuestRam, segment: Segment, flags: u16) -> Result<(), Broken> {
        if segment.bytes > 0 {
            segment.slice(memory)?;
        }
        if flags & WRITE != 0 {
            self.writable.push(segment);
        } else if self.writable.is_empty() {
            self.readable.push(segment);
        } else {
            return Err(Broken::Order);
        }
        Ok(())
    }
}

/// Copies from guest memory to as many bytes. What a device reads is a header of some words: a copy by the C library takes
/// longer to begin than these take, forty nanoseconds of the thousand that a frame takes (musl's has `rep movsq`).
fn copy(from: &VolatileSlice<'_>, into: &mut [u8]) {
    const FEW: usize = 16;
    const WORD: usize = size_of::<u32>();
    let guard = from.ptr_guard();
    let start = guard.as_ptr().cast::<u32>();
    let is_short = into.len() <= FEW.min(from.len());
    if !is_short || !into.len().is_multiple_of(WORD) || !start.is_aligned() {
        from.copy_to(into);
        return;
    }
    let (words, _) = into.as_chunks_mut::<WORD>();
    for (number, word) in words.iter_mut().enumerate() {
        // SAFETY: the slice has as many bytes, as was looked, and the word is aligned.
        *word = unsafe { start.add(number).read_volatile() }.to_ne_bytes();
    }
}

/// Cuts `bytes` bytes from `offset` on out of a list of segments.
fn parts(segments: &[Segment], offset: u64, bytes: u64) -> impl Iterator<Item = Segment> + '_ {
    let (mut skip, mut left) = (offset, bytes);
    segments.iter().filter_map(move |segment| {
        let skipped = skip.min(u64::from(segment.bytes));
        skip -= skipped;
        let taken = left.min(u64::from(segment.bytes) - skipped);
        left -= taken;
        (taken > 0).then(|| Segment {
            address: GuestAddress(segment.address.0 + skipped),
            bytes: taken as u32,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cut_across_segments() {
        let segment = |address, bytes| Segment {
            address: GuestAddress(address),
            bytes,
        };
        let list = [
            segment(0x1000, 16),
            segment(0x2000, 0),
            segment(0x3000, 512),
            segment(0x4000, 1),
        ];
        let cut = |offset, bytes| parts(&list, offset, bytes).collect::<Vec<_>>();
        assert_eq!(cut(0, 16), [segment(0x1000, 16)]);
        assert_eq!(cut(10, 10), [segment(0x100a, 6), segment(0x3000, 4)]);
        assert_eq!(cut(16, 1000), [segment(0x3000, 512), segment(0x4000, 1)]);
        assert_eq!(cut(600, 1), []);
    }
}
