//! The `kvmlet` command.
//!
//! `main` is C's, not Rust's: to be able to tell of a stack overflow, Rust's runtime looks for the end of the stack in
//! `/proc/self/maps` and gives each thread a second stack, a twentieth of a VM's start in all. A stack that overflows
//! ends the process at its guard page all the same. What else the runtime does first
//! (`library/std/src/sys/pal/unix/mod.rs`, `init`) is done here.

#![no_main]

use kvmlet_sys::{clock, process};
use std::ffi::{c_char, c_int};

/// Runs the command line, which the standard library finds for itself, and exits.
// SAFETY: the C library calls the function of this name, and with these types, once all else is set up.
#[unsafe(no_mangle)]
pub extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    let started = clock::process_start();
    process::set_up_streams();
    // Flushes what is left in standard output's buffer.
    std::process::exit(kvmlet_cli::run(started).into())
}
