//! io_uring, where the host has it.

use io_uring::{IoUring, Probe, opcode};
use std::io;

/// A ring for reads, writes, syncs and allocation of files, to be used by the calling thread alone.
///
/// # Errors
/// When the host forbids io_uring (seccomp, `/proc/sys/kernel/io_uring_disabled`), is too old for one of the
/// operations, or has not the memory.
pub fn new(entries: u32) -> io::Result<IoUring> {
    let ring = tuned(entries).or_else(|error| match error.raw_os_error() {
        // A flag that this kernel does not know yet.
        Some(libc::EINVAL) => IoUring::new(entries),
        _ => Err(error),
    })?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        (opcode::Readv::CODE, "readv"),
        (opcode::Writev::CODE, "writev"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::Fallocate::CODE, "fallocate"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        None => Ok(ring),
        Some((_, name)) => Err(io::Error::other(format!(
            "this kernel's io_uring has no {name}"
        ))),
    }
}

/// One thread submits and reaps, and the kernel finishes requests when that thread enters it anyway instead of
/// interrupting it (Linux 6.0).
///
/// DEFER_TASKRUN would batch even better, but with it a thread that sleeps in poll(2) on the ring is not woken
/// (seen on Linux 6.18).
fn tuned(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .dontfork()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .build(entries)
}
