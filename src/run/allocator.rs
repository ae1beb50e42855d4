//! What the allocator may ask of the kernel: threads in the jail may map no memory. That is kvmlet's own one, or, in a
//! program that has not chosen it, the C library's.

use crate::Error;
use kvmlet_sys::heap;

/// glibc gives each thread an arena of its own, which takes system calls and memory; vCPU threads hardly allocate. To be
/// called while there is one thread.
pub(crate) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; there is only one thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Has the C library's allocator give the kernel back what is free again, by calls that threads in the jail may not make.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the allocator go on with the addresses that it has: glibc takes them from the heap from now on.
///
/// # Errors
/// When it is one of another C library, which knows no such thing.
pub(crate) fn map_no_memory() -> Result<(), Error> {
    heap::close();
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; there is only one thread yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
    }
    match cfg!(target_env = "gnu") || heap::is_chosen() {
        true => Ok(()),
        false => Err(Error::Allocator),
    }
}
