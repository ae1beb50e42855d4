//! Waiting for descriptors and deadlines: the one way to do it (ppoll(2)).
//!
//! A loop says with each turn what it waits for now, one [`Slot`] for each, and takes the answer apart by the same
//! places. So there is nothing to keep in step with its state, as there would be with epoll; what has many descriptors
//! (the proxies of published ports) has one of epoll, which fills a slot here.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// One thing that is waited for.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Slot<'fd>(libc::pollfd, PhantomData<BorrowedFd<'fd>>);

impl<'fd> Slot<'fd> {
    /// Nothing, which never comes.
    pub const NOTHING: Self = Self::new(-1, 0);

    const fn new(fd: libc::c_int, events: libc::c_short) -> Self {
        let revents = 0;
        let raw = libc::pollfd {
            fd,
            events,
            revents,
        };
        Self(raw, PhantomData)
    }

    /// That something can be read, or that nobody is left who writes.
    pub fn readable(fd: BorrowedFd<'fd>) -> Self {
        Self::new(fd.as_raw_fd(), libc::POLLIN)
    }

    /// That something can be written, or that nobody is left who reads.
    pub fn writable(fd: BorrowedFd<'fd>) -> Self {
        Self::new(fd.as_raw_fd(), libc::POLLOUT)
    }

    /// Either of both.
    pub fn usable(fd: BorrowedFd<'fd>) -> Self {
        Self::new(fd.as_raw_fd(), libc::POLLIN | libc::POLLOUT)
    }

    /// That nobody is left at the other end of a pipe or socket.
    pub fn broken(fd: BorrowedFd<'fd>) -> Self {
        Self::new(fd.as_raw_fd(), 0)
    }

    /// Has it come? An error of the descriptor's counts, for whoever uses it is told then.
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// For how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Not at all: what is there now.
    Now,
    /// Until then.
    Deadline(Instant),
    /// As long as it takes.
    Forever,
}

impl Until {
    /// For some time from now on.
    pub fn after(time: Duration) -> Self {
        match time.is_zero() {
            true => Self::Now,
            false => Instant::now()
                .checked_add(time)
                .map_or(Self::Forever, Self::Deadline),
        }
    }

    fn left(self) -> Option<Duration> {
        match self {
            Self::Now => Some(Duration::ZERO),
            Self::Deadline(at) => Some(at.saturating_duration_since(Instant::now())),
            Self::Forever => None,
        }
    }
}

/// Where nothing is due, for ever.
impl From<Option<Instant>> for Until {
    fn from(due: Option<Instant>) -> Self {
        due.map_or(Self::Forever, Self::Deadline)
    }
}

/// Waits for any of these, and tells which have come: none when the time is up. A signal does not end it.
///
/// # Errors
/// When this process may not have as many descriptors as there are slots, or the kernel has no memory.
pub fn any<const N: usize>(mut slots: [Slot<'_>; N], until: Until) -> io::Result<[bool; N]> {
    any_of(&mut slots, until)?;
    Ok(slots.map(|slot| slot.is_ready()))
}

/// Waits for one, and tells whether it has come.
///
/// # Errors
/// As [`any`].
pub fn one(slot: Slot<'_>, until: Until) -> io::Result<bool> {
    any([slot], until).map(|[ready]| ready)
}

/// Waits for any of these, of which each tells afterwards [whether it has come](Slot::is_ready).
///
/// # Errors
/// As [`any`]. None has come then.
#[expect(clippy::disallowed_methods, reason = "this is the one way to wait")]
pub fn any_of(slots: &mut [Slot<'_>], until: Until) -> io::Result<()> {
    let raw = slots.as_mut_ptr().cast::<libc::pollfd>();
    let count = slots.len() as libc::nfds_t;
    loop {
        let left = until.left().map(timespec);
        let left = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: a slot is nothing but a `pollfd`, there are as many, and the time outlives the call.
        if unsafe { libc::ppoll(raw, count, left, std::ptr::null()) } >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_comes_is_told_by_its_place() {
        let (early, late) = (Event::new().unwrap(), Event::new().unwrap());
        early.signal();
        let both = [early.as_fd(), late.as_fd()].map(Slot::readable);
        assert_eq!(any(both, Until::Forever).unwrap(), [true, false]);
        let order = [Slot::NOTHING, both[1], both[0]];
        assert_eq!(any(order, Until::Forever).unwrap(), [false, false, true]);
        assert!(one(Slot::usable(late.as_fd()), Until::Now).unwrap());
    }

    #[test]
    fn waiting_ends_in_time_and_not_before() {
        let since = Instant::now();
        let time = Duration::from_millis(20);
        let ready = any([Slot::NOTHING], Until::after(time));
        assert_eq!(ready.unwrap(), [false]);
        assert!(since.elapsed() >= time);
        let past = Until::Deadline(since);
        assert!(!one(Slot::NOTHING, past).unwrap());
        assert_eq!(Until::after(Duration::ZERO), Until::Now);
        assert_eq!(Until::after(Duration::MAX), Until::Forever);
    }

    #[test]
    fn the_end_of_a_pipe_counts_both_ways() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(one(Slot::writable(writer.as_fd()), Until::Now).unwrap());
        assert!(!one(Slot::readable(reader.as_fd()), Until::Now).unwrap());
        drop(writer);
        assert!(one(Slot::readable(reader.as_fd()), Until::Now).unwrap());
    }

    /// Whoever is signalled waits on, and no longer than it was to.
    #[test]
    fn a_signal_does_not_end_waiting() {
        static CAME: AtomicBool = AtomicBool::new(false);
        extern "C" fn note(_: libc::c_int) {
            CAME.store(true, Ordering::Relaxed);
        }
        // SAFETY: the handler stores a flag; the signal is of no use to anybody else here.
        unsafe { libc::signal(libc::SIGURG, note as *const () as libc::sighandler_t) };
        // SAFETY: this thread's own handle.
        let thread = unsafe { libc::pthread_self() } as usize;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                // SAFETY: that thread waits for this one.
                unsafe { libc::pthread_kill(thread as libc::pthread_t, libc::SIGURG) };
            });
            let since = Instant::now();
            let time = Duration::from_millis(60);
            assert!(!one(Slot::NOTHING, Until::after(time)).unwrap());
            assert!(since.elapsed() >= time);
        });
        assert!(CAME.load(Ordering::Relaxed));
    }
}
