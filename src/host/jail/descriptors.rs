//! Open descriptors: all that is left in the jail.

use super::check;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes all descriptors of this process but the given ones. For a process that was just forked, before it
/// opens what is its own: what it inherited beyond these is for whoever forked it, or a leak.
///
/// Values of the parent that own a descriptor must not be dropped any more.
///
/// # Errors
/// What close_range(2) says; it came with Linux 5.9.
pub fn keep_only(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: whoever calls `keep_only` says that nothing uses these descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// What the open descriptors are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// The highest number.
    pub highest: RawFd,
    /// Whether a regular file can be written to.
    pub writes_files: bool,
}

impl Inventory {
    /// Looks at all open descriptors.
    ///
    /// # Errors
    /// When one is a directory: a way out of any root; or when /proc cannot be read.
    pub fn take() -> io::Result<Self> {
        let mut inventory = Self::default();
        each(|fd| {
            // SAFETY: the number is that of an open descriptor, and there is one thread.
            let open = unsafe { BorrowedFd::borrow_raw(fd) };
            inventory.highest = inventory.highest.max(fd);
            match FileType::from_raw_mode(fstat(open)?.st_mode) {
                FileType::Directory => {
                    let text = format!("descriptor {fd} is a directory, which is a way out");
                    return Err(io::Error::other(text));
                }
                FileType::RegularFile => {
                    let mode = fcntl_getfl(open)? & OFlags::RWMODE;
                    inventory.writes_files |= mode != OFlags::RDONLY;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(inventory)
    }
}

/// Calls `look` with each open descriptor.
fn each(look: impl FnMut(RawFd) -> io::Result<()>) -> io::Result<()> {
    let directory = std::fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<RawFd> = directory
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The directory's own descriptor is among them, and closed by now.
    let mut open = numbers.into_iter().filter(|fd| {
        // SAFETY: F_GETFD only reads.
        unsafe { libc::fcntl(*fd, libc::F_GETFD) != -1 }
    });
    open.try_for_each(look)
}
