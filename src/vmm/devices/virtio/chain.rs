//! One request: a descriptor chain, checked as a whole before anything of it is used.

use super::broken::Broken;
use crate::memory::GuestMemory;
use std::ops::Deref;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// A piece of guest memory that a descriptor points to. It is in RAM, in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub address: GuestAddress,
    /// Size in bytes.
    pub bytes: u32,
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
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Broken> {
        let mut done = 0;
        for part in parts(&self.readable, offset, buffer.len() as u64) {
            let end = done + part.bytes as usize;
            memory.read_slice(&mut buffer[done..end], part.address)?;
            done = end;
        }
        Ok(done)
    }

    /// Copies into the writable part, from `offset` on; returns how many bytes there was room for.
    ///
    /// # Errors
    /// Only if memory went away, which it does not.
    pub fn write(&self, memory: &GuestMemory, offset: u64, bytes: &[u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for part in parts(&self.writable, offset, bytes.len() as u64) {
            let end = done + part.bytes as usize;
            memory.write_slice(&bytes[done..end], part.address)?;
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

    /// Takes a chain from the queue, keeping this value's allocations.
    pub(super) fn fill<M>(
        &mut self,
        memory: &GuestMemory,
        chain: DescriptorChain<M>,
        longest: u16,
    ) -> Result<(), Broken>
    where
        M: Deref<Target = GuestMemory>,
    {
        self.head = chain.head_index();
        self.readable.clear();
        self.writable.clear();
        let mut more = true;
        for descriptor in chain {
            let segment = Segment {
                address: descriptor.addr(),
                bytes: descriptor.len(),
            };
            if segment.bytes > 0
                && memory
                    .get_slice(segment.address, segment.bytes as usize)
                    .is_err()
            {
                return Err(Broken::Address {
                    address: segment.address.0,
                    bytes: segment.bytes,
                });
            }
            if descriptor.is_write_only() {
                self.writable.push(segment);
            } else if self.writable.is_empty() {
                self.readable.push(segment);
            } else {
                return Err(Broken::Order);
            }
            if self.readable.len() + self.writable.len() > usize::from(longest) {
                return Err(Broken::Length);
            }
            more = descriptor.has_next();
        }
        // virtio-queue ends a chain silently where a descriptor cannot be followed; only one without NEXT
        // is the driver's own end.
        if more { Err(Broken::Chain) } else { Ok(()) }
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
