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

#[cfg(test)]
mod tests {
    #[test]
    fn the_start_lies_in_the_past() {
        assert!(super::process_start() <= std::time::Instant::now());
    }
}
