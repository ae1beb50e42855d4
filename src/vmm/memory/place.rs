//! Where a region of guest memory is in this process.

use std::ptr::NonNull;
use vm_memory::{GuestAddress, GuestMemoryRegion, GuestRegionMmap};

/// A region: both addresses of its first byte, and its size.
#[derive(Debug)]
pub(super) struct Place {
    start: u64,
    bytes: u64,
    host: *mut u8,
}

// SAFETY: an address says the same to every thread; nothing is accessed by it here.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    pub fn of(region: &GuestRegionMmap<()>) -> Self {
        Self {
            start: region.start_addr().0,
            bytes: region.len(),
            host: region.as_ptr(),
        }
    }

    /// The host's address of those bytes, if they are all in this region.
    pub fn find(&self, start: GuestAddress, bytes: usize) -> Option<NonNull<u8>> {
        let offset = start.0.checked_sub(self.start)?;
        let room = self.bytes.checked_sub(offset)?;
        match bytes as u64 <= room {
            true => NonNull::new(self.host.wrapping_add(offset as usize)),
            false => None,
        }
    }
}
