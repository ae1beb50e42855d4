//! Descriptors that this process may still open (RLIMIT_NOFILE in getrlimit(2)). The usual soft limit of 1024 is for
//! programs that call select(2), and may be raised up to the hard one by whoever knows better.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What else a VM opens, at its start and at its end.
const SPARE: u64 = 48;

/// What others of this process were promised.
static RESERVED: AtomicU64 = AtomicU64::new(0);

/// There are fewer than it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process may have {limit} files and sockets open, and {needed} are needed")]
pub struct TooFew {
    /// The hard limit.
    pub limit: u64,
    /// How many would do.
    pub needed: u64,
}

/// Descriptors that are there when they are wanted. Dropping it leaves them to others.
#[derive(Debug)]
pub struct Reserved(u64);

impl Reserved {
    /// Reserves as many as are wanted, or as there are if that is enough for the least. The soft limit of this process
    /// is raised for them, as far as the hard one allows.
    ///
    /// # Errors
    /// When there are fewer than the least.
    pub fn take(least: usize, wanted: usize) -> Result<Self, TooFew> {
        let limit = getrlimit(Resource::Nofile);
        let (soft, hard) = (
            limit.current.unwrap_or(u64::MAX),
            limit.maximum.unwrap_or(u64::MAX),
        );
        let others = RESERVED.load(Ordering::Relaxed) + open() + SPARE;
        let (least, wanted) = (least as u64, wanted as u64);
        let most = match others + wanted <= soft {
            true => soft,
            false => raise(limit, hard.min(others + wanted)).unwrap_or(soft),
        };
        let there = most.saturating_sub(others).min(wanted);
        if there < least {
            let needed = others + least;
            return Err(TooFew {
                limit: most,
                needed,
            });
        }
        RESERVED.fetch_add(there, Ordering::Relaxed);
        Ok(Self(there))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0 as usize
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        RESERVED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Raises the soft limit, and returns it.
fn raise(limit: Rlimit, to: u64) -> io::Result<u64> {
    let current = Some(to);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    Ok(to)
}

/// How many are open. Where there is no /proc, the lowest number that is free tells, unless there are gaps below.
fn open() -> u64 {
    match std::fs::read_dir("/proc/self/fd") {
        // Less the one that reads them.
        Ok(entries) => entries.count() as u64 - 1,
        Err(_) => rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 0)
            .map_or(SPARE, |lowest| {
                std::os::fd::AsRawFd::as_raw_fd(&lowest) as u64
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::isolation::isolated;

    fn set(soft: u64, hard: u64) {
        let (current, maximum) = (Some(soft), Some(hard));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    }

    fn soft() -> u64 {
        getrlimit(Resource::Nofile).current.unwrap()
    }

    #[test]
    fn the_soft_limit_is_raised_as_far_as_it_goes() {
        isolated(
            "shares::descriptors::tests::the_soft_limit_is_raised_as_far_as_it_goes",
            || {
                set(100, 2000);
                let other = open() + SPARE;
                let first = Reserved::take(50, 800).unwrap();
                assert_eq!((first.count(), soft()), (800, other + 800));
                let second = Reserved::take(50, 800).unwrap();
                assert_eq!((second.count(), soft()), (800, other + 1600));
                // Less than that is left.
                let third = Reserved::take(50, 800).unwrap();
                assert_eq!((third.count() as u64, soft()), (2000 - other - 1600, 2000));
                assert!(Reserved::take(1, 800).is_err());
                drop(first);
                assert_eq!(Reserved::take(1, 800).unwrap().count(), 800);
                drop((second, third));
                set(64, 64);
                let error = Reserved::take(50, 800).unwrap_err();
                assert_eq!((error.limit, error.needed), (64, other + 50));
            },
        );
    }
}
