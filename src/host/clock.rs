//! When did this process start?

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The instant at which this process began to run, as near as it can be told from inside.
///
/// `/proc/self/stat` counts starts in 10 ms ticks, which is coarser than what is measured here. The CPU time
/// of the process is exact, and before `main` a process hardly ever waits; so the start is taken to lie that
/// much CPU time back. Call this first thing in `main`. It counts `exec`, the loading of the program, and what the
/// child did between `fork` and `exec`, which for a shell can be more than all the rest.
pub fn process_start() -> Instant {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let now = Instant::now();
    let cpu = Duration::new(
        spent.tv_sec.unsigned_abs(),
        spent.tv_nsec.unsigned_abs() as u32,
    );
    now.checked_sub(cpu).unwrap_or(now)
}

/// An instant in nanoseconds of CLOCK_MONOTONIC, which all processes of the host share.
pub fn monotonic_ns(at: Instant) -> u64 {
    let clock = clock_gettime(ClockId::Monotonic);
    let clock = Duration::new(
        clock.tv_sec.unsigned_abs(),
        clock.tv_nsec.unsigned_abs() as u32,
    );
    let past = clock.saturating_sub(at.elapsed());
    u64::try_from(past.as_nanos()).unwrap_or(u64::MAX)
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

    #[test]
    fn the_start_lies_in_the_past() {
        assert!(super::process_start() <= std::time::Instant::now());
    }
}
