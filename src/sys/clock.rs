//! What the clocks say, when this process has started, and when the clock of the day was set.

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The instant at which this process began to run, as near as it can be told from inside.
///
/// `/proc/self/stat` counts starts in 10 ms ticks, which is coarser than what is measured here. The CPU time
/// of the process is exact, and before `main` a process hardly ever waits; so the start is taken to lie that
/// much CPU time back. Call this first thing in `main`. It counts `exec`, the loading of the program, and what the
/// child did between `fork` and `exec`, which for a shell can be more than all the rest.
pub fn process_start() -> Instant {
    let cpu = process_cpu();
    let now = Instant::now();
    now.checked_sub(cpu).unwrap_or(now)
}

/// The CPU time that this process has used.
pub fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// An instant in nanoseconds of CLOCK_MONOTONIC, which all processes of the host share.
pub fn monotonic_ns(at: Instant) -> u64 {
    let past = read(libc::CLOCK_MONOTONIC).saturating_sub(at.elapsed());
    u64::try_from(past.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells when the clock of the day jumps: somebody sets it, or the host has slept (`TFD_TIMER_CANCEL_ON_SET` in
/// timerfd_create(2)).
#[derive(Debug)]
pub struct ClockWatch(OwnedFd);

impl ClockWatch {
    /// Watches from now on.
    ///
    /// # Errors
    /// When the host gives no descriptor.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let never = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: i64::MAX,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &never)?;
        Ok(Self(timer))
    }

    /// Has it jumped, since this was asked last? The descriptor is readable then.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub fn has_jumped(&self) -> io::Result<bool> {
        match rustix::io::read(&self.0, &mut [0; 8]) {
            Err(Errno::CANCELED) => Ok(true),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// By the C library, which has found the vDSO already.
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: stores the time. It cannot fail: Linux has both clocks.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn instants_are_on_the_clock_that_processes_share() {
        let before = std::time::Instant::now();
        let after = before + std::time::Duration::from_micros(250);
        // Read one after the other, so the difference may grow, hardly shrink.
        let (first, second) = (super::monotonic_ns(before), super::monotonic_ns(after));
        assert!(second.abs_diff(first) < 1_000_000_000);
    }

    /// That it jumps is tested where it may be set: on the second host.
    #[test]
    fn a_clock_that_nobody_sets_does_not_jump() {
        let watch = super::ClockWatch::new().unwrap();
        assert!(!watch.has_jumped().unwrap());
    }

    #[test]
    fn the_start_lies_in_the_past() {
        assert!(super::process_start() <= std::time::Instant::now());
    }
}
