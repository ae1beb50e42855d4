//! The global allocator, which indirect descriptors of the virtio drivers need.
//!
//! Powers of two, one list of free blocks each. For one thread: CPUs beyond the first never
//! run Rust code.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::heap::{PAGE_BYTES, take_pages};

/// Smallest block: room for the link of the free list.
const SMALLEST_SHIFT: u32 = 4;
/// Largest block, 16 MiB.
const LARGEST_SHIFT: u32 = 24;
const CLASSES: usize = (LARGEST_SHIFT - SMALLEST_SHIFT + 1) as usize;

#[global_allocator]
static ALLOCATOR: SizeClasses = SizeClasses {
    free: [const { AtomicU64::new(0) }; CLASSES],
};

struct SizeClasses {
    /// First free block of each class, 0 if there is none. A free block holds the next one.
    free: [AtomicU64; CLASSES],
}

impl SizeClasses {
    fn push(&self, class: usize, block: u64) {
        let next = self.free[class].load(Ordering::Relaxed);
        // SAFETY: a block that nobody uses, of at least eight bytes.
        unsafe { *(block as *mut u64) = next };
        self.free[class].store(block, Ordering::Relaxed);
    }

    fn pop(&self, class: usize) -> Option<u64> {
        let block = self.free[class].load(Ordering::Relaxed);
        if block == 0 {
            return None;
        }
        // SAFETY: `push` has put the link there, and nobody has used the block since.
        self.free[class].store(unsafe { *(block as *const u64) }, Ordering::Relaxed);
        Some(block)
    }
}

/// The class whose blocks hold `layout`. Blocks are aligned to their size, or to a page if
/// they are larger.
fn class(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align()).max(1 << SMALLEST_SHIFT);
    let shift = bytes.next_power_of_two().ilog2();
    (shift <= LARGEST_SHIFT && layout.align() <= PAGE_BYTES as usize)
        .then_some((shift - SMALLEST_SHIFT) as usize)
}

// SAFETY: a block is on a list or given out, never both, and is large and aligned enough for
// its class.
unsafe impl GlobalAlloc for SizeClasses {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class(layout) else {
            return core::ptr::null_mut();
        };
        if let Some(block) = self.pop(class) {
            return block as *mut u8;
        }
        let block_bytes = 1 << (class as u32 + SMALLEST_SHIFT);
        let pages = u64::div_ceil(block_bytes, PAGE_BYTES);
        let first = take_pages(pages);
        for block in (first..first + pages * PAGE_BYTES)
            .step_by(block_bytes as usize)
            .skip(1)
        {
            self.push(class, block);
        }
        first as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(class) = class(layout) {
            self.push(class, block as u64);
        }
    }
}
