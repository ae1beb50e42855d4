//! Guest memory as the kernel wants it for a transfer.

use crate::devices::virtio::{Broken, Segment};
use crate::memory::GuestRam;
use std::cell::UnsafeCell;

/// Zeroes to write where the host cannot make them without. They could be written to, so the executable has none of
/// them in its file.
#[repr(align(4096))]
struct Zeroes(UnsafeCell<[u8; ZEROES_BYTES]>);
// SAFETY: nobody writes to them.
unsafe impl Sync for Zeroes {}
const ZEROES_BYTES: usize = 64 << 10;
/// Times that the zeroes stand in one transfer.
const ZEROES_PARTS: usize = LOT_BYTES / ZEROES_BYTES;
static ZEROES: Zeroes = Zeroes(UnsafeCell::new([0; ZEROES_BYTES]));

/// The most that one operation transfers. Whoever stops a disk waits for what the kernel is at, so a request of a
/// guest's choice is carried out lot by lot.
pub(super) const LOT_BYTES: usize = 1 << 20;

/// A list of pieces of guest memory. The value keeps the guest's RAM mapped, so the pieces stay valid as long
/// as it lives, wherever it is moved; their contents may change at any time, as the guest likes.
pub(super) struct Buffers {
    memory: GuestRam,
    parts: Vec<libc::iovec>,
    /// Parts before this one are done with.
    first: usize,
    /// Parts from this one on are for a later operation.
    end: usize,
}

// SAFETY: the pointers are into a mapping that is valid in every thread and that `memory` keeps alive, or
// into a static.
unsafe impl Send for Buffers {}

impl Buffers {
    pub fn new(memory: GuestRam) -> Self {
        Self {
            memory,
            parts: Vec::new(),
            first: 0,
            end: 0,
        }
    }

    /// Replaces the list by these pieces; what lies side by side becomes one.
    pub fn fill(&mut self, segments: impl Iterator<Item = Segment>) -> Result<(), Broken> {
        self.clear();
        for segment in segments {
            let bytes = segment.bytes as usize;
            let slice = segment.slice(&self.memory)?;
            let start = slice.ptr_guard_mut().as_ptr();
            match self.parts.last_mut() {
                Some(last) if last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == start => {
                    last.iov_len += bytes;
                }
                _ => self.parts.push(libc::iovec {
                    iov_base: start.cast(),
                    iov_len: bytes,
                }),
            }
        }
        self.cut_lot();
        Ok(())
    }

    /// Makes the next lot of what is left.
    fn cut_lot(&mut self) {
        self.cut(LOT_BYTES, self.parts.len());
    }

    /// Has the next transfer end after this many bytes, if not before; more than none.
    pub fn bound(&mut self, bytes: u64) {
        if bytes < LOT_BYTES as u64 {
            self.cut(bytes as usize, self.end);
        }
    }

    /// Makes a lot of the parts before the last one, as long as there is room.
    fn cut(&mut self, mut room: usize, last: usize) {
        self.end = self.first;
        while let Some(part) = self.parts[..last].get_mut(self.end) {
            self.end += 1;
            if part.iov_len < room {
                room -= part.iov_len;
                continue;
            }
            let rest = libc::iovec {
                iov_base: part.iov_base.cast::<u8>().wrapping_add(room).cast(),
                iov_len: part.iov_len - room,
            };
            part.iov_len = room;
            if rest.iov_len > 0 {
                self.parts.insert(self.end, rest);
            }
            return;
        }
    }

    /// Replaces the list by zeroes to be written: as many as asked for, or as fit; returns how many.
    pub fn fill_zeroes(&mut self, bytes: u64) -> u64 {
        self.clear();
        let mut left = bytes.min((ZEROES_BYTES * ZEROES_PARTS) as u64) as usize;
        let filled = left as u64;
        while left > 0 {
            let iov_len = left.min(ZEROES_BYTES);
            // Only ever read: zeroes are for writing to a disk.
            let iov_base = ZEROES.0.get().cast();
            self.parts.push(libc::iovec { iov_base, iov_len });
            left -= iov_len;
        }
        self.cut_lot();
        filled
    }

    pub fn clear(&mut self) {
        self.parts.clear();
        (self.first, self.end) = (0, 0);
    }

    /// What is to be transferred next: [`LOT_BYTES`] at the most, and nothing when all is done.
    pub fn parts(&self) -> &[libc::iovec] {
        &self.parts[self.first..self.end]
    }

    /// Takes from the front what a transfer has done.
    pub fn advance(&mut self, mut bytes: usize) {
        while let Some(part) = self.parts[..self.end].get_mut(self.first) {
            if bytes < part.iov_len {
                part.iov_base = part.iov_base.cast::<u8>().wrapping_add(bytes).cast();
                part.iov_len -= bytes;
                return;
            }
            bytes -= part.iov_len;
            self.first += 1;
        }
        self.cut_lot();
    }

    /// Do all pieces begin and end at multiples of this?
    pub fn is_aligned(&self, alignment: usize) -> bool {
        self.parts()
            .iter()
            .all(|part| (part.iov_base as usize | part.iov_len).is_multiple_of(alignment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, GuestRam};
    use vm_memory::GuestAddress;

    fn lengths(buffers: &Buffers) -> Vec<usize> {
        buffers.parts().iter().map(|part| part.iov_len).collect()
    }

    #[test]
    fn pieces_merge_and_advance() {
        let ram = GuestRam::allocate(&[(GuestAddress(0), 1 << 16)], Backing::default()).unwrap();
        let mut buffers = Buffers::new(ram.clone());
        drop(ram);
        let segment = |address, bytes| Segment {
            address: GuestAddress(address),
            bytes,
        };
        let list = [
            segment(0, 512),
            segment(512, 512),
            segment(4096, 100),
            segment(8192, 1),
        ];
        buffers.fill(list.iter().copied()).unwrap();
        assert_eq!(lengths(&buffers), [1024, 100, 1]);
        assert!(!buffers.is_aligned(512));
        // What is bounded is transferred in two goes, and nothing of it is lost.
        for (bytes, bounded) in [
            (2000, &[1024, 100, 1][..]),
            (1124, &[1024, 100]),
            (1030, &[1024, 6]),
        ] {
            buffers.bound(bytes);
            assert_eq!(lengths(&buffers), bounded);
        }
        buffers.advance(1030);
        assert_eq!(lengths(&buffers), [94, 1]);
        buffers.fill(list.iter().copied()).unwrap();
        buffers.advance(1000);
        assert_eq!(lengths(&buffers), [24, 100, 1]);
        buffers.advance(24);
        assert_eq!(lengths(&buffers), [100, 1]);
        buffers.advance(101);
        assert_eq!(lengths(&buffers), [] as [usize; 0]);
        assert!(buffers.fill([segment(1 << 16, 1)].into_iter()).is_err());
    }

    #[test]
    fn zeroes_come_in_limited_lots() {
        let ram = GuestRam::allocate(&[(GuestAddress(0), 4096)], Backing::default()).unwrap();
        let mut buffers = Buffers::new(ram.clone());
        assert_eq!(buffers.fill_zeroes(100_000), 100_000);
        assert_eq!(lengths(&buffers), [65_536, 34_464]);
        assert_eq!(buffers.fill_zeroes(1 << 40), 1 << 20);
    }

    #[test]
    fn a_long_list_goes_lot_by_lot() {
        let ram = GuestRam::allocate(&[(GuestAddress(0), 4 << 20)], Backing::default()).unwrap();
        let mut buffers = Buffers::new(ram.clone());
        let segment = |address, bytes| Segment {
            address: GuestAddress(address),
            bytes,
        };
        let list = [segment(0, 3000), segment(8192, 0x28_0000), segment(4096, 1)];
        buffers.fill(list.into_iter()).unwrap();
        let lot = LOT_BYTES;
        assert_eq!(lengths(&buffers), [3000, lot - 3000]);
        // A short transfer leaves the rest of its lot.
        buffers.advance(lot - 1000);
        assert_eq!(lengths(&buffers), [1000]);
        buffers.advance(1000);
        assert_eq!(lengths(&buffers), [lot]);
        buffers.advance(lot);
        let left = 0x28_0000 + 3000 - 2 * lot;
        assert_eq!(lengths(&buffers), [left, 1]);
        buffers.advance(left + 1);
        assert_eq!(lengths(&buffers), [] as [usize; 0]);
    }
}
