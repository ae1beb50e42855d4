//! Open descriptors: all that is left in the jail.

use kvmlet_sys::process::{becomes_single, has_one_thread_or};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, fcntl_getfl, fstat, open, openat, statat,
};
use rustix::io::{FdFlags, fcntl_getfd};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// This process's directory in /proc. What is looked up in it is found even when /proc is no longer within reach.
#[derive(Debug)]
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// Opens it; /proc is within reach.
    ///
    /// # Errors
    /// When nothing is mounted there.
    pub fn open() -> io::Result<Self> {
        Ok(Self(open("/proc/self", DIRECTORY, Mode::empty())?))
    }

    /// Makes sure that this process has no thread but this one.
    ///
    /// # Errors
    /// When there are others.
    pub fn is_single(&self) -> io::Result<()> {
        let links = || Ok(statat(&self.0, "task", AtFlags::empty())?.st_nlink);
        match becomes_single(|| has_one_thread_or(links))? {
            true => Ok(()),
            false => Err(io::Error::other("there are other threads")),
        }
    }

    /// Looks at all open descriptors but its own, and closes those that whoever started the program has left open
    /// in it: a program keeps its own from programs that it starts (FD_CLOEXEC), so they are the ones it was given.
    /// Standard input and outputs stay.
    ///
    /// # Errors
    /// When one is a directory: a way out of any root.
    pub fn descriptors(&self) -> io::Result<Inventory> {
        let mut inventory = Inventory::default();
        let directory = openat(&self.0, "fd", DIRECTORY, Mode::empty())?;
        let own = [self.0.as_raw_fd(), directory.as_raw_fd()];
        // Closing some while they are listed confuses nobody: each is looked up by its number.
        let mut buffer = [MaybeUninit::uninit(); 2048];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let number = entry.file_name().to_str().ok();
            match number.and_then(|number| number.parse().ok()) {
                Some(fd) if !own.contains(&fd) => inventory.add(fd)?,
                _ => {}
            }
        }
        Ok(inventory)
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// What the open descriptors are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// The highest number.
    pub highest: RawFd,
    /// The size of the largest regular file that can be written to.
    pub largest_file_bytes: u64,
}

impl Inventory {
    fn add(&mut self, fd: RawFd) -> io::Result<()> {
        #[expect(
            clippy::disallowed_methods,
            reason = "whatever is open, nobody here owns"
        )]
        // SAFETY: the number is that of an open descriptor, and there is one thread.
        let open = unsafe { BorrowedFd::borrow_raw(fd) };
        if fd > libc::STDERR_FILENO && !fcntl_getfd(open)?.contains(FdFlags::CLOEXEC) {
            // SAFETY: nobody in this process knows it.
            unsafe { libc::close(fd) };
            return Ok(());
        }
        self.highest = self.highest.max(fd);
        let status = fstat(open)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let text = format!("descriptor {fd} is a directory, which is a way out");
                return Err(io::Error::other(text));
            }
            FileType::RegularFile if fcntl_getfl(open)? & OFlags::RWMODE != OFlags::RDONLY => {
                let bytes = status.st_size.unsigned_abs();
                self.largest_file_bytes = self.largest_file_bytes.max(bytes);
            }
            _ => {}
        }
        Ok(())
    }
}
