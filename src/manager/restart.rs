//! When a service that has ended is started again, and after how long: docker's rules, as a matter of numbers alone.

use kvmlet_spec::supervision::RestartPolicy;
use std::num::NonZeroU32;
use std::time::Duration;

/// The first pause; each is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Who has run for this long is taken to have started well.
const RAN_WELL: Duration = Duration::from_secs(10);

/// What becomes of a service that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays so.
    Stay,
    /// It is started again.
    Again {
        /// After this long.
        after: Duration,
    },
}

/// The starts of one service, under one supervisor.
#[derive(Clone, Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    /// The last pause; none when the service had run well.
    pause: Option<Duration>,
    /// How often it was started again.
    count: u32,
}

impl Restarts {
    /// One that is being started for the first time.
    pub fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            pause: None,
            count: 0,
        }
    }

    /// It has ended with a code after it `ran` for this long, and maybe because somebody has stopped it.
    pub fn ended(&mut self, code: u8, ran: Duration, stopped: bool) -> Decision {
        let wanted = match self.policy {
            _ if stopped => false,
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { at_most } => {
                code != 0 && at_most.map_or(u32::MAX, NonZeroU32::get) > self.count
            }
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        };
        if !wanted {
            return Decision::Stay;
        }
        self.count = self.count.saturating_add(1);
        let after = match self.pause.filter(|_| ran < RAN_WELL) {
            None => SHORTEST,
            Some(pause) => pause.saturating_mul(2).min(LONGEST),
        };
        self.pause = Some(after);
        Decision::Again { after }
    }

    /// How often it was started again.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Is a service that does not run to be started when its host has started?
pub fn is_due_after_boot(policy: RestartPolicy, stopped: bool) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !stopped,
        RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHORT: Duration = Duration::from_secs(1);

    fn pauses(policy: &str, code: u8, ran: Duration) -> Vec<u128> {
        let mut restarts = Restarts::new(policy.parse().unwrap());
        let mut next = || match restarts.ended(code, ran, false) {
            Decision::Again { after } => Some(after.as_millis()),
            Decision::Stay => None,
        };
        (0..12).map_while(|_| next()).collect()
    }

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000,
        ];
        for policy in ["always", "unless-stopped", "on-failure"] {
            assert_eq!(pauses(policy, 1, SHORT), expected);
            assert_eq!(pauses(policy, 1, RAN_WELL), [100; 12]);
        }
        assert_eq!(pauses("on-failure:3", 1, SHORT), [100, 200, 400]);
        assert_eq!(pauses("on-failure", 0, SHORT), [0; 0]);
        assert_eq!(pauses("no", 1, SHORT), [0; 0]);
        assert_eq!(pauses("always", 0, SHORT).len(), 12);
    }

    #[test]
    fn after_a_boot_what_was_stopped_may_stay_so() {
        let due = |policy: &str, stopped| is_due_after_boot(policy.parse().unwrap(), stopped);
        assert!(due("always", true) && due("always", false) && due("unless-stopped", false));
        assert!(!due("unless-stopped", true) && !due("on-failure", false) && !due("no", false));
    }

    fn policies() -> impl Strategy<Value = RestartPolicy> {
        let texts = [
            "no",
            "on-failure",
            "on-failure:1",
            "on-failure:4",
            "always",
            "unless-stopped",
        ];
        proptest::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn whatever_happens_pauses_are_within_bounds(
            policy in policies(),
            ends in proptest::collection::vec((0..3_u8, 0..20_u64, proptest::bool::weighted(0.1)), 0..40),
        ) {
            let mut restarts = Restarts::new(policy);
            let mut last = None;
            for (code, seconds, stopped) in ends {
                let count = restarts.count();
                match restarts.ended(code, Duration::from_secs(seconds), stopped) {
                    Decision::Stay => {
                        let limit = matches!(policy, RestartPolicy::OnFailure { at_most: Some(most) } if count >= most.get());
                        let well = matches!(policy, RestartPolicy::OnFailure { .. }) && code == 0;
                        prop_assert!(stopped || policy == RestartPolicy::No || well || limit);
                        prop_assert_eq!(restarts.count(), count);
                    }
                    Decision::Again { after } => {
                        prop_assert!(!stopped && after >= SHORTEST && after <= LONGEST);
                        prop_assert_eq!(restarts.count(), count + 1);
                        match last {
                            Some(last) if seconds < 10 => prop_assert_eq!(after, LONGEST.min(last * 2)),
                            _ => prop_assert_eq!(after, SHORTEST),
                        }
                        last = Some(after);
                    }
                }
            }
        }
    }
}
