//! Which pages of guest RAM the host holds, and how it gets them back.

use super::{GuestMemory, GuestRam};
use std::io;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress,
};

/// The unit in which the host gives and takes, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Pages that are asked about in one call.
const PAGES_PER_CALL: usize = 1 << 14;

/// Has the host find pages for the whole range at once, that is about to be written: a fault for each page takes half
/// as long again. What it cannot do (Linux before 5.14, a range in two regions) is done page by page later.
pub fn populate(ram: &GuestMemory, start: GuestAddress, bytes: usize) {
    let first = start.0 / PAGE_BYTES * PAGE_BYTES;
    let bytes = bytes + (start.0 - first) as usize;
    if let Ok(slice) = ram.get_slice(GuestAddress(first), bytes) {
        let guard = slice.ptr_guard_mut();
        // SAFETY: the range is a mapping of ours, whose contents stay as they are.
        unsafe { libc::madvise(guard.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
    }
}

impl GuestRam {
    /// Gives the whole pages of a range back to the host; returns their size in bytes. They read as zeros
    /// from then on, and whoever touches one, the guest or a device, gets a new page at that moment.
    ///
    /// Memory that is mapped from a file is left as it is. All other is private and anonymous, for which `MADV_DONTNEED` frees at once (madvise(2)). A
    /// device that works on such a page just then keeps its own reference to the old one, or faults a new
    /// one in: what it moves may be lost for the guest, which gave the page away, and for nobody else.
    /// Of a transparent huge page, the host gets memory back when all of it was given, or when it needs some.
    ///
    /// # Errors
    /// A range that is not RAM, or in two regions; reserved huge pages cannot be given back in small parts.
    pub fn give_back(&self, start: GuestAddress, bytes: u64) -> io::Result<u64> {
        let (Some(end), Some(first)) = (
            start.checked_add(bytes),
            start.0.checked_next_multiple_of(PAGE_BYTES),
        ) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let bytes = (end.0 / PAGE_BYTES * PAGE_BYTES).saturating_sub(first);
        if bytes == 0 || !self.gives_back() {
            return Ok(0);
        }
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        let slice = self
            .get_slice(GuestAddress(first), length)
            .map_err(io::Error::other)?;
        let guard = slice.ptr_guard_mut();
        // SAFETY: the range is a mapping of ours. No Rust reference points into guest memory, whose contents
        // may change at any time, and to zeros as well as to anything else.
        match unsafe { libc::madvise(guard.as_ptr().cast(), length, libc::MADV_DONTNEED) } {
            0 => {
                self.note_given(GuestAddress(first), bytes);
                Ok(bytes)
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How much of it is in the host's memory now, in bytes. A page that was only read counts as well, though
    /// the host has one page of zeros for all of those.
    ///
    /// # Errors
    /// When the host does not tell.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let mut states = vec![0u8; PAGES_PER_CALL];
        let mut resident = 0;
        for region in self.iter() {
            let start = region
                .get_host_address(MemoryRegionAddress(0))
                .map_err(io::Error::other)?;
            let step = PAGES_PER_CALL * PAGE_BYTES as usize;
            let size = region.len() as usize;
            for offset in (0..size).step_by(step) {
                let length = step.min(size - offset);
                // SAFETY: the range is part of the region's mapping, and there is a byte for each of its pages.
                let result =
                    unsafe { libc::mincore(start.add(offset).cast(), length, states.as_mut_ptr()) };
                if result != 0 {
                    return Err(io::Error::last_os_error());
                }
                let pages = length.div_ceil(PAGE_BYTES as usize);
                resident += states[..pages]
                    .iter()
                    .map(|state| u64::from(state & 1))
                    .sum::<u64>();
            }
        }
        Ok(resident * PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HugePages;
    use crate::memory::Backing;
    use vm_memory::Bytes;

    const HIGH: u64 = 1 << 32;

    fn ram(pages: HugePages, prefault: bool) -> GuestRam {
        let ranges = [(GuestAddress(0), 4 << 20), (GuestAddress(HIGH), 8 << 20)];
        GuestRam::allocate(&ranges, Backing { pages, prefault }).unwrap()
    }

    #[test]
    fn what_is_touched_is_resident_and_what_is_given_back_is_not() {
        let ram = ram(HugePages::Off, false);
        assert_eq!(ram.resident_bytes().unwrap(), 0);
        for page in [0, 5, 6, 7, HIGH / PAGE_BYTES + 2047] {
            ram.write_obj(7u64, GuestAddress(page * PAGE_BYTES))
                .unwrap();
        }
        assert_eq!(ram.resident_bytes().unwrap(), 5 * PAGE_BYTES);
        let given = ram.give_back(GuestAddress(5 * PAGE_BYTES), 2 * PAGE_BYTES);
        assert_eq!(given.unwrap(), 2 * PAGE_BYTES);
        assert_eq!(ram.resident_bytes().unwrap(), 3 * PAGE_BYTES);
        let read = |page: u64| {
            ram.read_obj::<u64>(GuestAddress(page * PAGE_BYTES))
                .unwrap()
        };
        assert_eq!((read(5), read(6), read(7)), (0, 0, 7));
    }

    #[test]
    fn only_whole_pages_of_ram_are_given_back() {
        let ram = ram(HugePages::Off, true);
        let all = ram.bytes();
        let give = |start, bytes| ram.give_back(GuestAddress(start), bytes).ok();
        assert_eq!(give(1, 2 * PAGE_BYTES - 1), Some(PAGE_BYTES));
        assert_eq!(give(1, PAGE_BYTES), Some(0));
        assert_eq!(give(8 * PAGE_BYTES, 0), Some(0));
        assert_eq!(ram.resident_bytes().unwrap(), all - PAGE_BYTES);
        // The hole, what runs into it, the end of the address space.
        for (start, bytes) in [
            (4 << 20, PAGE_BYTES),
            ((4 << 20) - PAGE_BYTES, 2 * PAGE_BYTES),
            (0, HIGH + PAGE_BYTES),
            (u64::MAX - PAGE_BYTES, 2 * PAGE_BYTES),
            (!0xfff, 0xfff),
            (u64::MAX - 8, 8),
        ] {
            assert_eq!(give(start, bytes).unwrap_or(0), 0, "{start:#x}");
        }
        assert_eq!(ram.resident_bytes().unwrap(), all - PAGE_BYTES);
    }

    #[test]
    fn transparent_huge_pages_are_given_back_in_small_parts_too() {
        let ram = ram(HugePages::Transparent, true);
        let all = ram.bytes();
        assert_eq!(ram.resident_bytes().unwrap(), all);
        ram.give_back(GuestAddress(PAGE_BYTES), PAGE_BYTES).unwrap();
        ram.give_back(GuestAddress(HIGH), 2 << 20).unwrap();
        assert_eq!(ram.resident_bytes().unwrap(), all - PAGE_BYTES - (2 << 20));
    }
}
