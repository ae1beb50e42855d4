//! Waiting for what others write into a directory (inotify(7)), or for something else.

use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A directory that is watched.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Somebody has written something.
    Changed,
    /// The other thing that was waited for can be read.
    Other,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Watch {
    pub fn on(directory: &Directory) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        // The directory that is open, wherever it is now.
        let open = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        match add_watch(&inotify, open, what) {
            Err(Errno::NOENT) => add_watch(&inotify, directory.path(), what)?,
            other => other?,
        };
        Ok(Self(inotify))
    }

    /// Waits until somebody has written something since the last time, or `other` can be read.
    pub fn wait(&self, other: BorrowedFd<'_>) -> io::Result<Woken> {
        let slots = [Slot::readable(other), Slot::readable(self.0.as_fd())];
        let [other, changed] = wait::any(slots, Until::Forever)?;
        if other {
            return Ok(Woken::Other);
        }
        if changed {
            self.forget()?;
        }
        Ok(Woken::Changed)
    }

    /// Waits until somebody has written something since the last time.
    pub fn wait_for_change(&self) -> io::Result<()> {
        wait::one(Slot::readable(self.0.as_fd()), Until::Forever)?;
        self.forget()
    }

    fn forget(&self) -> io::Result<()> {
        // A writer without end has one event after the other for us: let it write a little at a time.
        std::thread::sleep(Duration::from_millis(1));
        self.take()
    }

    /// What was written by now is nothing new any more.
    pub fn take(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.0, &mut events) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
