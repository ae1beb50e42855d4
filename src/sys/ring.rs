//! io_uring, where the host has it.

use io_uring::register::Restriction;
use io_uring::{IoUring, Probe, opcode};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// All that any ring of ours does.
const OPERATIONS: [(u8, &str); 5] = [
    (opcode::Readv::CODE, "readv"),
    (opcode::Writev::CODE, "writev"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::Nop::CODE, "nop"),
    (opcode::AsyncCancel::CODE, "async_cancel"),
];
/// What one for a block device does, too.
const OF_DEVICES: (u8, &str) = (opcode::Fallocate::CODE, "fallocate");

/// What a ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Regular files. The kernel cannot be told which modes of fallocate(2) a ring may use, and some of them give a
    /// file blocks beyond its end, which no limit on its size prevents: those rings do not allocate.
    File,
    /// Block devices, which do not grow.
    Device,
}

/// A ring for reads, writes, syncs and their cancellation, of devices also for allocation, and nothing else: what a ring does is not
/// held to the lists of system calls, so the kernel is told to hold it to these (io_uring_register(2),
/// IORING_REGISTER_RESTRICTIONS, Linux 5.10). It takes no requests before the thread that is to use it alone has
/// [enabled](enable) it.
///
/// # Errors
/// When the host forbids io_uring (seccomp, `/proc/sys/kernel/io_uring_disabled`), is too old for restrictions
/// or one of the operations, or has not the memory.
pub fn new(entries: u32, medium: Medium) -> io::Result<IoUring> {
    let ring = tuned(entries).or_else(|error| match error.raw_os_error() {
        // A flag that this kernel does not know yet.
        Some(libc::EINVAL) => IoUring::builder().setup_r_disabled().build(entries),
        _ => Err(error),
    })?;
    let mut operations = OPERATIONS.to_vec();
    if medium == Medium::Device {
        operations.push(OF_DEVICES);
    }
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let missing = operations
        .iter()
        .find(|(code, _)| !probe.is_supported(*code));
    if let Some((_, name)) = missing {
        let text = format!("this kernel's io_uring has no {name}");
        return Err(io::Error::other(text));
    }
    let allowed = operations
        .iter()
        .map(|(code, _)| Restriction::sqe_op(*code));
    let mut allowed: Vec<_> = allowed.collect();
    ring.submitter().register_restrictions(&mut allowed)?;
    Ok(ring)
}

/// Lets a new ring be used, by the calling thread.
///
/// # Errors
/// When it is in use.
pub fn enable(ring: &IoUring) -> io::Result<()> {
    ring.submitter().register_enable_rings()
}

/// Readable when requests are done.
#[expect(
    clippy::disallowed_methods,
    reason = "the only owner of a descriptor that cannot lend it by itself"
)]
pub fn completions(ring: &IoUring) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to the ring, which outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
}

/// One thread submits and reaps, and the kernel finishes requests when that thread enters it anyway instead of
/// interrupting it (Linux 6.0).
///
/// DEFER_TASKRUN would batch even better, but with it a thread that sleeps in poll(2) on the ring is not woken
/// (seen on Linux 6.18).
fn tuned(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .dontfork()
        .setup_r_disabled()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .build(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::types::Fd;
    use io_uring::{opcode, squeue};

    fn run(ring: &mut IoUring, entry: squeue::Entry) -> i32 {
        // SAFETY: the entries of these tests point to nothing, or to constants.
        unsafe { ring.submission().push(&entry).unwrap() };
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    #[test]
    fn a_ring_does_what_it_is_for_and_nothing_else() {
        let Ok(mut ring) = new(4, Medium::File) else {
            return; // forbidden here
        };
        assert!(ring.submit().is_err(), "it is not enabled");
        enable(&ring).unwrap();
        assert_eq!(run(&mut ring, opcode::Nop::new().build()), 0);
        let null = std::fs::File::open("/dev/null").unwrap();
        let fd = Fd(std::os::fd::AsRawFd::as_raw_fd(&null));
        let read = opcode::Readv::new(fd, std::ptr::null(), 0).build();
        assert_eq!(run(&mut ring, read), 0);
        let path = c"/etc/passwd".as_ptr();
        for forbidden in [
            opcode::OpenAt::new(Fd(libc::AT_FDCWD), path).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Close::new(fd).build(),
            opcode::Fallocate::new(fd, 4096).build(),
        ] {
            assert_eq!(run(&mut ring, forbidden), -libc::EACCES);
        }
        // Nor can it be given anything, or be loosened.
        assert!(ring.submitter().register_files(&[0]).is_err());
        assert!(enable(&ring).is_err());
        assert!(ring.submitter().register_restrictions(&mut []).is_err());
        let mut ring = new(4, Medium::Device).unwrap();
        enable(&ring).unwrap();
        let allocate = opcode::Fallocate::new(fd, 4096).build();
        assert_ne!(run(&mut ring, allocate), -libc::EACCES);
    }
}
