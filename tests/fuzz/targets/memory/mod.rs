//! How much memory the code under test has, of what this language allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static HELD: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: it is the system's, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is held so far does not count.
pub fn begin() {
    BEFORE.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// No more is held now, in bytes.
pub fn expect_at_most(bytes: usize) {
    let held = HELD.load(Ordering::Relaxed);
    let held = held.saturating_sub(BEFORE.load(Ordering::Relaxed));
    assert!(held <= bytes, "{held} bytes are held");
}
