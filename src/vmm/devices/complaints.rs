//! What guests can cause to be logged. The log is the host's: no guest may fill it.

use super::virtio::rate_limiter::{Bucket, Clock, Monotonic};
use kvmlet_sys::thread::lock;
use std::fmt;
use std::num::NonZero;
use std::sync::Mutex;
use std::time::Duration;

/// Warnings that come at once before any is left out, and how many follow in a second.
const BURST: NonZero<u64> = NonZero::new(8).unwrap();
const PER_SECOND: NonZero<u64> = NonZero::new(1).unwrap();

/// Warnings about one device, through a token bucket. How many were left out is told with the next one that
/// passes, or at the end.
pub struct Complaints {
    clock: Box<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    bucket: Bucket,
    refilled: Duration,
    left_out: u64,
}

impl Complaints {
    /// None yet.
    pub fn new() -> Self {
        Self::with_clock(Monotonic)
    }

    fn with_clock(clock: impl Clock + 'static) -> Self {
        let state = State {
            bucket: Bucket::new(PER_SECOND, BURST),
            refilled: clock.now(),
            left_out: 0,
        };
        Self {
            clock: Box::new(clock),
            state: Mutex::new(state),
        }
    }

    /// Logs a warning, or counts it.
    pub fn warn(&self, message: impl fmt::Display) {
        match self.pass() {
            None => {}
            Some(0) => log::warn!("{message}"),
            Some(left_out) => log::warn!("{message} ({left_out} warnings before it were left out)"),
        }
    }

    /// Whether one more may pass, and how many did not since the last one.
    fn pass(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        let now = self.clock.now();
        let elapsed = now.saturating_sub(state.refilled);
        state.bucket.refill(elapsed);
        state.refilled = now;
        if !state.bucket.wait(1).is_zero() {
            state.left_out += 1;
            return None;
        }
        state.bucket.spend(1);
        Some(std::mem::take(&mut state.left_out))
    }
}

impl Default for Complaints {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = lock(&self.state).left_out;
        f.debug_struct("Complaints")
            .field("left_out", &left_out)
            .finish_non_exhaustive()
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        match lock(&self.state).left_out {
            0 => {}
            left_out => log::warn!("{left_out} more warnings about a device were left out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::rate_limiter::tests::TestClock;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let clock = TestClock::default();
        let complaints = Complaints::with_clock(clock.clone());
        let mut passed = Vec::new();
        // 10,000 a second for ten seconds.
        for _ in 0..100_000 {
            passed.extend(complaints.pass());
            clock.advance(Duration::from_micros(100));
        }
        let told: u64 = passed.iter().sum();
        assert!((9..20).contains(&passed.len()), "{}", passed.len());
        let rest = lock(&complaints.state).left_out;
        assert_eq!(told + rest + passed.len() as u64, 100_000);
        // Who is quiet for a while may speak again, and says what was left out.
        clock.advance(Duration::from_secs(60));
        assert_eq!(complaints.pass(), Some(rest));
        assert_eq!(complaints.pass(), Some(0));
    }
}
