//! What the C library's allocator may ask of the kernel: threads in the jail may map no memory.

/// glibc gives each thread an arena of its own, which takes system calls and memory; vCPU threads hardly allocate. To be
/// called while there is one thread.
pub(crate) fn use_one_arena() {
    // SAFETY: sets a parameter of the allocator; there is only one thread yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives the kernel back what was allocated and is free again.
pub(crate) fn give_back() {
    // SAFETY: it touches nothing but free memory.
    unsafe { libc::malloc_trim(0) };
}

/// Has the allocator take all memory from the heap from now on.
pub(crate) fn map_no_memory() {
    // SAFETY: sets a parameter of the allocator; there is only one thread yet.
    unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) };
}
