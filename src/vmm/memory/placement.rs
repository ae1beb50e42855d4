//! Where in this process guest RAM lies, so that the processor can use its large pages.

use std::io;
use std::ptr::null_mut;
use vm_memory::mmap::MmapRegionError;
use vm_memory::{GuestAddress, MmapRegion};

/// The large page of the architecture, in bytes.
const LARGE: usize = 2 << 20;
/// Each try that misses fills a hole of the address space that was in the way; a process has a few of them.
const TRIES: usize = 64;

/// Maps what `build` maps to a place that lies in its large page as `start` does in the guest's: KVM maps a large
/// page only where both addresses do (`kvm_mmu_hugepage_adjust` in arch/x86/kvm/mmu). Linux aligns by itself since
/// 6.7, and sizes that are whole large pages only.
///
/// Without such a place, small pages serve: the last try's mapping is taken wherever it is.
pub(super) fn aligned(
    bytes: usize,
    start: GuestAddress,
    build: impl Fn() -> Result<MmapRegion, MmapRegionError>,
) -> Result<MmapRegion, MmapRegionError> {
    let wanted = start.0 as usize % LARGE;
    let fits = |region: &MmapRegion| region.as_ptr() as usize % LARGE == wanted;
    let mut region = build()?;
    // Given back only at the end: the next one would otherwise land at the same place.
    let mut misses = Vec::new();
    while !fits(&region) && misses.len() < TRIES {
        let Ok(_frame) = Frame::around(bytes, wanted) else {
            break;
        };
        misses.push(std::mem::replace(&mut region, build()?));
    }
    Ok(region)
}

/// Reserved addresses around a hole of the right size at the right place: the kernel puts what is mapped next into the
/// topmost hole that is large enough, which is this one once those above it are filled.
struct Frame([(usize, usize); 2]);

impl Frame {
    fn around(bytes: usize, wanted: usize) -> io::Result<Self> {
        let whole = bytes
            .checked_next_multiple_of(4096)
            .and_then(|bytes| bytes.checked_add(2 * LARGE))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice, which nobody can touch.
        let at = unsafe { libc::mmap(null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = at as usize;
        let hole = at.next_multiple_of(LARGE) + wanted;
        let after = hole + bytes.next_multiple_of(4096);
        unmap(hole, after);
        Ok(Self([(at, hole), (after, at + whole)]))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        for (start, end) in self.0 {
            unmap(start, end);
        }
    }
}

/// Gives reserved addresses back.
fn unmap(start: usize, end: usize) {
    if start < end {
        // SAFETY: part of a mapping that `Frame::around` made, which nobody has touched or will.
        unsafe { libc::munmap(start as *mut libc::c_void, end - start) };
    }
}
