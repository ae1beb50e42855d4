//! Open descriptors: all that is left in the jail.

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{FdFlags, fcntl_getfd};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

/// What the open descriptors are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// The highest number.
    pub highest: RawFd,
    /// Whether a regular file can be written to.
    pub writes_files: bool,
}

impl Inventory {
    /// Looks at all open descriptors, and closes those that whoever started the program has left open in it:
    /// a program keeps its own from programs that it starts (FD_CLOEXEC), so they are the ones it was given.
    /// Standard input and outputs stay.
    ///
    /// # Errors
    /// When one is a directory: a way out of any root; or when /proc cannot be read.
    pub fn take() -> io::Result<Self> {
        let mut inventory = Self::default();
        each(|fd| {
            // SAFETY: the number is that of an open descriptor, and there is one thread.
            let open = unsafe { BorrowedFd::borrow_raw(fd) };
            if fd > libc::STDERR_FILENO && !fcntl_getfd(open)?.contains(FdFlags::CLOEXEC) {
                // SAFETY: nobody in this process knows it.
                unsafe { libc::close(fd) };
                return Ok(());
            }
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
