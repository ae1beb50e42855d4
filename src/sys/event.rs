//! What one thread, process or kernel tells another without a word: a counter that can be waited for (eventfd(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use vmm_sys_util::eventfd::EventFd;

/// An event, readable from when it was [signalled](Self::signal) until it is [taken](Self::take). It never blocks.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// One that has not been signalled.
    ///
    /// # Errors
    /// When the host gives no descriptor.
    #[expect(clippy::disallowed_methods, reason = "this is the one event")]
    pub fn new() -> io::Result<Self> {
        EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map(Self)
    }

    /// Makes it readable.
    pub fn signal(&self) {
        // It fails only if the counter is full, and then it is readable already.
        let _ = self.0.write(1);
    }

    /// How often it was signalled since it was last taken.
    pub fn take(&self) -> u64 {
        self.0.read().unwrap_or(0)
    }

    /// A second handle of the same event.
    ///
    /// # Errors
    /// When the host gives no descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        // One call, whichever C library there is: vCPU threads, which are held to a list, make copies.
        let copy = rustix::io::fcntl_dupfd_cloexec(self, 0)?;
        // SAFETY: it is an event's, and nobody else's.
        Ok(Self(unsafe { EventFd::from_raw_fd(copy.into_raw_fd()) }))
    }

    /// What KVM's calls take (irqfd, ioeventfd).
    #[doc(hidden)] // of kvmlet's own crates
    pub fn for_kvm(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Event {
    #[expect(
        clippy::disallowed_methods,
        reason = "the only owner of a descriptor that cannot lend it by itself"
    )]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is owned by `self`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{self, Slot, Until};

    #[test]
    fn it_counts_until_it_is_taken() {
        let event = Event::new().unwrap();
        let is_readable = || wait::one(Slot::readable(event.as_fd()), Until::Now).unwrap();
        assert!(!is_readable());
        assert_eq!(event.take(), 0);
        let second = event.try_clone().unwrap();
        event.signal();
        second.signal();
        assert!(is_readable());
        assert_eq!(event.take(), 2);
        assert!(!is_readable());
    }
}
