//! Whether a service is well, by what its checks say: docker's rules, as a matter of numbers alone. Who runs the checks
//! and has a clock asks this when to run the next, and tells how it went.

mod results;

pub use results::{CheckResult, Checked};

use kvmlet_spec::supervision::HealthCheck;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Whether a service is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nobody knows yet.
    Starting,
    /// The last check has said so.
    Healthy,
    /// As many checks in a row as it takes have failed.
    Unhealthy,
}

impl Health {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What there is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A check is to begin at this time.
    CheckAt(Duration),
    /// The check that runs has failed if it has not ended by this time.
    FailedAt(Duration),
}

/// The health of one run of a service. Times are counted from any one point in time.
#[derive(Clone, Debug)]
pub struct Watched {
    check: HealthCheck,
    started: Duration,
    health: Health,
    failures: u32,
    next: Next,
    /// When the check that runs has begun.
    begun: Duration,
}

impl Watched {
    /// A service that has started now.
    pub fn new(check: HealthCheck, now: Duration) -> Self {
        let mut watched = Self {
            check,
            started: now,
            health: Health::Starting,
            failures: 0,
            next: Next::CheckAt(now),
            begun: now,
        };
        watched.next = Next::CheckAt(now.saturating_add(watched.pause(now)));
        watched
    }

    /// Whether it is well.
    pub fn health(&self) -> Health {
        self.health
    }

    /// How many checks in a row have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What there is to be done, and when.
    pub fn next(&self) -> Next {
        self.next
    }

    /// A check begins. It has to end by the time that [`next`](Self::next) says then.
    pub fn begin(&mut self, now: Duration) {
        self.begun = now;
        self.next = Next::FailedAt(now.saturating_add(self.check.timeout.duration()));
    }

    /// The check has ended, well or not; one that has taken too long has not. True if that has changed whether it is well.
    pub fn ended(&mut self, well: bool, now: Duration) -> bool {
        let before = self.health;
        if well {
            (self.health, self.failures) = (Health::Healthy, 0);
        } else if !self.is_starting(self.begun) {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.check.retries {
                self.health = Health::Unhealthy;
            }
        }
        self.next = Next::CheckAt(now.saturating_add(self.pause(now)));
        self.health != before
    }

    /// The check that runs, if one does, says nothing: the service stood still. The next one takes its time from now on.
    pub fn rested(&mut self, now: Duration) {
        self.next = Next::CheckAt(now.saturating_add(self.pause(now)));
    }

    /// Does a failure not count yet?
    fn is_starting(&self, now: Duration) -> bool {
        let since = now.saturating_sub(self.started);
        self.health == Health::Starting && since < self.check.start_period.duration()
    }

    fn pause(&self, now: Duration) -> Duration {
        match self.is_starting(now) {
            true => self.check.start_interval.duration(),
            false => self.check.interval.duration(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn check(start_period: &str) -> HealthCheck {
        let mut check = HealthCheck::new("true");
        check.start_period = start_period.parse().unwrap();
        check
    }

    #[test]
    fn three_failures_in_a_row_make_it_unhealthy() {
        let mut watched = Watched::new(check("0"), at(100));
        assert_eq!(
            (watched.health(), watched.next()),
            (Health::Starting, Next::CheckAt(at(130)))
        );
        let mut now = 130;
        let mut step = |well| {
            watched.begin(at(now));
            assert_eq!(watched.next(), Next::FailedAt(at(now + 30)));
            let changed = watched.ended(well, at(now + 2));
            assert_eq!(watched.next(), Next::CheckAt(at(now + 32)));
            now += 32;
            (changed, watched.health())
        };
        assert_eq!(step(false), (false, Health::Starting));
        assert_eq!(step(true), (true, Health::Healthy));
        assert_eq!(step(true), (false, Health::Healthy));
        for _ in 0..2 {
            assert_eq!(step(false), (false, Health::Healthy));
        }
        assert_eq!(step(false), (true, Health::Unhealthy));
        assert_eq!(step(false), (false, Health::Unhealthy));
        assert_eq!(step(true), (true, Health::Healthy));
    }

    #[test]
    fn a_service_may_take_its_time_to_start() {
        let mut watched = Watched::new(check("20s"), at(0));
        for now in [5, 10, 15] {
            assert_eq!(watched.next(), Next::CheckAt(at(now)));
            watched.begin(at(now));
            assert!(!watched.ended(false, at(now)));
            assert_eq!(watched.failures(), 0);
        }
        // One that began in time counts by when it began.
        watched.begin(at(19));
        watched.ended(false, at(21));
        assert_eq!(
            (watched.failures(), watched.next()),
            (0, Next::CheckAt(at(51)))
        );
        watched.begin(at(51));
        watched.ended(false, at(51));
        assert_eq!(watched.failures(), 1);
        // Who was well once has started.
        let mut watched = Watched::new(check("1h"), at(0));
        watched.begin(at(5));
        assert!(watched.ended(true, at(5)));
        assert_eq!(watched.next(), Next::CheckAt(at(35)));
        watched.begin(at(35));
        watched.ended(false, at(35));
        assert_eq!(watched.failures(), 1);
    }

    #[test]
    fn a_service_that_stood_still_is_what_it_was() {
        let mut watched = Watched::new(check("0"), at(0));
        watched.begin(at(30));
        assert!(watched.ended(true, at(31)));
        watched.begin(at(61));
        watched.rested(at(1000));
        assert_eq!((watched.health(), watched.failures()), (Health::Healthy, 0));
        assert_eq!(watched.next(), Next::CheckAt(at(1030)));
    }

    proptest! {
        /// What it says is what the last checks that count say.
        #[test]
        fn it_says_what_the_last_checks_say(
            retries in 1..5_u32,
            start in 0..60_u64,
            results in proptest::collection::vec((proptest::bool::ANY, 0..40_u64), 0..40),
        ) {
            let mut check = check(&format!("{start}s"));
            check.retries = retries;
            let mut watched = Watched::new(check, at(0));
            let mut counted: Vec<bool> = Vec::new();
            for (well, took) in results {
                let Next::CheckAt(now) = watched.next() else { panic!("one runs") };
                watched.begin(now);
                let Next::FailedAt(limit) = watched.next() else { panic!("none runs") };
                prop_assert_eq!(limit, now + at(30));
                let well = well && took < 30;
                let end = now + at(took.min(30));
                let before = watched.health();
                let changed = watched.ended(well, end);
                prop_assert_eq!(changed, watched.health() != before);
                let Next::CheckAt(next) = watched.next() else { panic!("one runs") };
                prop_assert!(next > end);
                let settled = counted.iter().any(|well| *well) || counted.len() >= retries as usize;
                if well || settled || now >= at(start) {
                    counted.push(well);
                }
                let failed = counted.iter().rev().take_while(|well| !**well).count();
                prop_assert_eq!(watched.failures() as usize, failed);
                let expected = match () {
                    () if well => Health::Healthy,
                    () if failed >= retries as usize => Health::Unhealthy,
                    () => before,
                };
                prop_assert_eq!(watched.health(), expected);
            }
        }
    }
}
