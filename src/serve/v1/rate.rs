//! How often requests are heard: a bucket for each user, which fills up again at a steady pace, so that a client that has run away
//! leaves the host to others, and one that has work to do never waits.

use super::problem::{Problem, TOO_OFTEN};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// As many requests are heard in a second, of each user.
pub const A_SECOND: u32 = 2000;
/// As many at once, after a pause.
pub const AT_ONCE: u32 = 4000;

/// What each user has asked for so far: this one, and root, for nobody else is heard.
#[derive(Debug)]
pub struct Rates {
    /// Between two requests, on average.
    pace: Duration,
    at_once: u32,
    /// When all that a user has asked for would have been asked at that pace.
    until: BTreeMap<u32, Instant>,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(Duration::from_secs(1) / A_SECOND, AT_ONCE)
    }
}

impl Rates {
    /// Of that pace.
    pub fn new(pace: Duration, at_once: u32) -> Self {
        Self {
            pace,
            at_once,
            until: BTreeMap::new(),
        }
    }

    /// Counts a request of a user's, which may be one too many: then it is told how long to wait for the next.
    pub fn take(&mut self, user: u32, now: Instant) -> Result<(), Duration> {
        let until = self.until.entry(user).or_insert(now);
        let next = (*until).max(now) + self.pace;
        let ahead = next - now;
        match ahead.checked_sub(self.pace * self.at_once) {
            None | Some(Duration::ZERO) => {
                *until = next;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

/// What somebody is told who has to wait that long, and the field of the answer's head that says it, in whole seconds.
pub fn too_often(wait: Duration) -> (Problem, Vec<(&'static str, String)>) {
    let detail = format!("more than {A_SECOND} requests a second");
    let problem = Problem::new(TOO_OFTEN, detail).help(
        "wait as `Retry-After` says; `GET /v1/events` tells what happens without being asked again",
    );
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    (problem, vec![("Retry-After", seconds.max(1).to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_at_once_and_fills_at_its_pace() {
        let second = Duration::from_secs(1);
        let mut rates = Rates::new(second, 3);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rates.take(0, now), Ok(()));
        }
        // Whoever asks all the same waits no longer for that.
        for _ in 0..5 {
            assert_eq!(rates.take(0, now), Err(second));
        }
        // Another user has one of its own.
        assert_eq!(rates.take(1, now), Ok(()));
        let later = now + second / 2;
        assert_eq!(rates.take(0, later), Err(second / 2));
        assert_eq!(rates.take(0, now + second), Ok(()));
        assert_eq!(rates.take(0, now + second), Err(second));
        // A long pause is worth no more than a full one.
        let much_later = now + 1000 * second;
        for _ in 0..3 {
            assert_eq!(rates.take(0, much_later), Ok(()));
        }
        assert_eq!(rates.take(0, much_later), Err(second));
    }

    #[test]
    fn a_busy_agent_never_waits() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for request in 0..AT_ONCE {
            assert_eq!(rates.take(0, start), Ok(()), "{request}");
        }
        for millisecond in 1..10_000 {
            let now = start + Duration::from_millis(millisecond);
            for _ in 0..A_SECOND / 1000 {
                assert_eq!(rates.take(0, now), Ok(()), "{millisecond} ms");
            }
        }
        let (problem, fields) = too_often(Duration::from_millis(1001));
        assert_eq!((problem.status, problem.retryable), (429, true));
        assert_eq!(fields, [("Retry-After", "2".to_string())]);
    }
}
