//! The `kvmlet` command.
//!
//! `main` is C's, not Rust's: to be able to tell of a stack overflow, Rust's runtime looks for the end of the stack in
//! `/proc/self/maps` and gives each thread a second stack, a twentieth of a VM's start in all. A stack that overflows
//! ends the process at its guard page all the same. What else the runtime does first
//! (`library/std/src/sys/pal/unix/mod.rs`, `init`) is done here.

#![no_main]

use kvmlet_sys::{arguments, clock, heap::Heap, streams};
use std::ffi::{c_char, c_int};

/// One that needs no system call: a VM's process has none for that.
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// Runs the command line, and exits.
///
/// # Safety
/// Called once, by the C library.
// SAFETY: the C library calls the function of this name, and with these types, once all else is set up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: these are `main`'s.
    unsafe { arguments::give(count, words) };
    let started = clock::process_start();
    streams::set_up_of_command();
    // Flushes what is left in standard output's buffer.
    std::process::exit(kvmlet_cli::run(started).into())
}
