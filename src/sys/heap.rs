//! An allocator for a process that may map no memory once it is in its jail: it takes a stretch of addresses before, and
//! memory as these are touched, which is no system call.
//!
//! A program chooses it:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: kvmlet_sys::heap::Heap = kvmlet_sys::heap::Heap;
//! ```

use crate::thread::lock;
use dlmalloc::{Allocator, Dlmalloc};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// How many addresses are taken at a time: more than the heap of a VM's process has been seen to need, with all streams
/// that it may have full of data that nobody takes.
const STRETCH_BYTES: usize = 32 << 20;
/// How many must be left when no more can come.
const LEAST_BYTES: usize = 24 << 20;
const PAGE_BYTES: usize = 4096;
/// Gaps that are looked for: how many steps that takes at the most, the first size, and that below which no page need be whole.
const MOST_GAPS: usize = 64;
const LARGEST_GAP: usize = 32 * PAGE_BYTES;
const SMALLEST_GAP: usize = 2 * PAGE_BYTES;

static HEAP: Mutex<Dlmalloc<Stretch>> = Mutex::new(Dlmalloc::new_with_allocator(Stretch::none()));

/// What a thread holds while it forks (fork(2) by the C library): the child has the heap as it is between two uses of it.
struct Held(UnsafeCell<Option<MutexGuard<'static, Dlmalloc<Stretch>>>>);

// SAFETY: whoever has the lock is alone with it.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

extern "C" fn before_fork() {
    let guard = lock(&HEAP);
    // SAFETY: this thread has the lock.
    unsafe { *HELD.0.get() = Some(guard) };
}

/// In both processes.
extern "C" fn after_fork() {
    // SAFETY: this thread has the lock, or is the copy of the one that has it.
    drop(unsafe { (*HELD.0.get()).take() });
}

/// The heap of this process. All values of this type are that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

/// Takes the last addresses from the kernel. From now on memory that is not there cannot be allocated, and none is given
/// back. Nothing happens in a program that chose another allocator.
pub fn close() {
    let heap = lock(&HEAP);
    let stretch = heap.allocator();
    if stretch.is_closed.get() || stretch.end.get().is_null() {
        return;
    }
    if stretch.left() < LEAST_BYTES {
        stretch.take(STRETCH_BYTES);
    }
    stretch.is_closed.set(true);
}

/// Has this program chosen it?
#[must_use]
pub fn is_chosen() -> bool {
    !lock(&HEAP).allocator().end.get().is_null()
}

/// What is dropped when there is time for it.
static UNUSED: Mutex<Vec<Box<dyn Send>>> = Mutex::new(Vec::new());

/// Takes what nobody needs any more and would take long to drop: that is done when the process next
/// [gives back](give_back), if it ever does.
pub fn drop_later(unused: impl Send + 'static) {
    lock(&UNUSED).push(Box::new(unused));
}

/// Gives the kernel back what was allocated and is free again: at the heap's end, and whole pages between what is used.
pub fn give_back() {
    drop(std::mem::take(&mut *lock(&UNUSED)));
    give_back_of(&mut lock(&HEAP));
}

fn give_back_of(heap: &mut Dlmalloc<Stretch>) {
    // SAFETY: it touches nothing but free memory.
    unsafe { heap.trim(0) };
    // dlmalloc tells nobody where its gaps are. Whoever asks for blocks, the largest first, and for no new memory, gets them.
    heap.allocator().gives_nothing.set(true);
    let mut gaps = [(null_mut(), 0); MOST_GAPS];
    let mut found = gaps.iter_mut();
    let mut bytes = LARGEST_GAP;
    while bytes >= SMALLEST_GAP
        && let Some(gap) = found.next()
    {
        // SAFETY: a block of at least one byte.
        let place = unsafe { heap.malloc(bytes, 1) };
        *gap = (place, bytes);
        if place.is_null() {
            bytes -= PAGE_BYTES;
        }
    }
    for (place, bytes) in gaps.into_iter().filter(|(place, _)| !place.is_null()) {
        leave_pages(place, bytes);
        // SAFETY: it was allocated above, and nobody else knows it.
        unsafe { heap.free(place, bytes, 1) };
    }
    heap.allocator().gives_nothing.set(false);
}

/// Has these bytes, which nobody uses, begin with zeros again as far as they are whole pages.
fn leave_pages(place: *mut u8, bytes: usize) {
    let first = place.wrapping_add(place.align_offset(PAGE_BYTES));
    let whole = place
        .wrapping_add(bytes)
        .addr()
        .saturating_sub(first.addr())
        & !(PAGE_BYTES - 1);
    if whole > 0 {
        // SAFETY: the caller has them.
        let _ = unsafe { madvise(first.cast(), whole, Advice::LinuxDontNeed) };
    }
}

// SAFETY: the heap is dlmalloc's, under a lock, which no other thread has when this one forks.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { lock(&HEAP).malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { lock(&HEAP).free(place, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { lock(&HEAP).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as the caller says.
        unsafe { lock(&HEAP).realloc(place, layout.size(), layout.align(), bytes) }
    }
}

/// Addresses that memory comes from, one behind the other.
struct Stretch {
    next: Cell<*mut u8>,
    end: Cell<*mut u8>,
    is_closed: Cell<bool>,
    /// For now: who asks is to have what is free.
    gives_nothing: Cell<bool>,
}

// SAFETY: the addresses are this process's, whichever thread uses them.
unsafe impl Send for Stretch {}

impl Stretch {
    const fn none() -> Self {
        Self {
            next: Cell::new(null_mut()),
            end: Cell::new(null_mut()),
            is_closed: Cell::new(false),
            gives_nothing: Cell::new(false),
        }
    }

    fn left(&self) -> usize {
        self.end.get().addr() - self.next.get().addr()
    }

    /// Takes another stretch; what is left of the one before is lost, which is nothing but addresses.
    fn take(&self, bytes: usize) {
        static IS_KEPT: AtomicBool = AtomicBool::new(false);
        if !IS_KEPT.swap(true, Ordering::Relaxed) {
            // A child that allocates before it executes a program might else wait for ever.
            // SAFETY: the functions are there as long as the process.
            unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping that nobody knows of.
        let Ok(start) = (unsafe { mmap_anonymous(null_mut(), bytes, access, flags) }) else {
            return;
        };
        // A page of 2 MiB would be more than the whole heap, and takes long to clear.
        // SAFETY: it is the mapping from above.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) };
        self.next.set(start.cast());
        self.end.set(start.wrapping_byte_add(bytes).cast());
    }
}

// SAFETY: what is given out is mapped, and given out once.
unsafe impl Allocator for Stretch {
    fn alloc(&self, bytes: usize) -> (*mut u8, usize, u32) {
        if self.left() < bytes && !self.is_closed.get() && !self.gives_nothing.get() {
            self.take(bytes.max(STRETCH_BYTES));
        }
        if self.left() < bytes || self.gives_nothing.get() {
            return (null_mut(), 0, 0);
        }
        let start = self.next.get();
        self.next.set(start.wrapping_add(bytes));
        (start, bytes, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, start: *mut u8, bytes: usize, kept: usize) -> bool {
        let (rest, end) = (start.wrapping_add(kept), start.wrapping_add(bytes));
        if self.is_closed.get() || !ptr::eq(end, self.next.get()) {
            return false;
        }
        // SAFETY: nobody uses it, as the caller says.
        if unsafe { madvise(rest.cast(), bytes - kept, Advice::LinuxDontNeed) }.is_err() {
            return false;
        }
        self.next.set(rest);
        true
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heap() -> Dlmalloc<Stretch> {
        Dlmalloc::new_with_allocator(Stretch::none())
    }

    #[test]
    fn what_is_freed_at_the_end_is_given_back() {
        let mut heap = heap();
        // SAFETY: each place is used as it was allocated, and freed once.
        unsafe {
            let small = heap.malloc(100, 8);
            small.write_bytes(0xff, 100);
            let large = heap.malloc(8 << 20, 4096);
            assert!(large.addr().is_multiple_of(4096));
            large.write_bytes(0xff, 8 << 20);
            let left = heap.allocator().left();
            heap.free(large, 8 << 20, 4096);
            assert!(heap.trim(0) || heap.allocator().left() > left);
            assert!(heap.allocator().left() > left + (7 << 20));
            let zeros = heap.calloc(8 << 20, 8);
            assert!(
                std::slice::from_raw_parts(zeros, 8 << 20)
                    .iter()
                    .all(|it| *it == 0)
            );
            heap.free(zeros, 8 << 20, 8);
            heap.free(small, 100, 8);
        }
    }

    #[test]
    fn what_is_free_between_others_is_given_back() {
        const BLOCKS: usize = 9;
        const BYTES: usize = 6 * PAGE_BYTES;
        let mut heap = heap();
        // SAFETY: as above; what is looked at is mapped, in use or not.
        unsafe {
            let blocks = [(); BLOCKS].map(|()| heap.malloc(BYTES, 8));
            let is_full =
                |block: *mut u8| (0..BYTES).all(|at| block.add(at).read_volatile() == 0xff);
            blocks
                .iter()
                .for_each(|block| block.write_bytes(0xff, BYTES));
            for closed in [false, true] {
                heap.allocator().is_closed.set(closed);
                // One by itself, and three in a row.
                let gaps = [1, 3, 4, 5];
                for gap in gaps {
                    heap.free(blocks[gap], BYTES, 8);
                }
                give_back_of(&mut heap);
                for gap in gaps {
                    assert_eq!(blocks[gap].add(BYTES / 2).read_volatile(), 0, "{gap}");
                }
                for used in [0, 2, 6, 7, 8] {
                    assert!(is_full(blocks[used]));
                }
                // All is there for whoever asks, and no more was taken.
                let left = heap.allocator().left();
                let again = gaps.map(|_| heap.malloc(BYTES, 8));
                assert_eq!(heap.allocator().left(), left);
                again
                    .iter()
                    .for_each(|block| block.write_bytes(0xff, BYTES));
                for used in [0, 2, 6, 7, 8] {
                    assert!(is_full(blocks[used]));
                }
                assert!(again.iter().all(|block| blocks.contains(block)));
            }
        }
    }

    #[test]
    fn a_closed_heap_has_what_it_has() {
        let mut heap = heap();
        // SAFETY: as above.
        unsafe {
            let first = heap.malloc(1, 1);
            heap.allocator().is_closed.set(true);
            assert!(heap.malloc(STRETCH_BYTES, 1).is_null());
            let second = heap.malloc(LEAST_BYTES, 1);
            assert!(!second.is_null());
            assert!(heap.malloc(LEAST_BYTES, 1).is_null());
            heap.free(second, LEAST_BYTES, 1);
            let second = heap.malloc(LEAST_BYTES, 1);
            assert!(!second.is_null());
            heap.free(second, LEAST_BYTES, 1);
            heap.free(first, 1, 1);
        }
    }

    #[test]
    fn a_child_of_a_process_with_threads_allocates() {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop(std::hint::black_box(vec![0_u8; 1000]));
                }
            });
            for _ in 0..300 {
                // SAFETY: the child does nothing but allocate, which this is about, and end.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: ends a child that would wait for ever.
                    unsafe { libc::alarm(10) };
                    drop(std::hint::black_box(vec![0_u8; 1000]));
                    // SAFETY: ends the child.
                    unsafe { libc::_exit(0) };
                }
                let mut status = 0;
                // SAFETY: stores a number.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_larger_stretch_is_taken_where_one_does_not_do() {
        let mut heap = heap();
        // SAFETY: as above.
        unsafe {
            let first = heap.malloc(1000, 8);
            first.write_bytes(1, 1000);
            let second = heap.malloc(2 * STRETCH_BYTES, 8);
            second.add(2 * STRETCH_BYTES - 1).write(2);
            let first = heap.realloc(first, 1000, 8, STRETCH_BYTES);
            assert_eq!(
                (
                    first.add(999).read(),
                    second.add(2 * STRETCH_BYTES - 1).read()
                ),
                (1, 2)
            );
            heap.free(first, STRETCH_BYTES, 8);
            heap.free(second, 2 * STRETCH_BYTES, 8);
        }
    }
}
