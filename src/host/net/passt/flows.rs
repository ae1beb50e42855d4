//! Conversations that may go on, as far as they are remembered.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Two parties that answer each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub protocol: u8,
    pub remote: Ipv4Addr,
    /// Ports of both; for pings none, and their identifier.
    pub remote_port: u16,
    pub guest_port: u16,
}

/// Those that were seen last. Each has two tables' time to be seen again, so however many a guest or its clients begin,
/// no more than two tables are kept.
#[derive(Debug, Default)]
pub(super) struct Flows {
    young: HashSet<Flow>,
    old: HashSet<Flow>,
}

impl Flows {
    /// Of one table. The busiest services have some thousand clients at a time.
    pub const MOST: usize = 8192;

    /// Is it one that goes on? Then it is kept for longer.
    pub fn know(&mut self, flow: &Flow) -> bool {
        if self.young.contains(flow) {
            return true;
        }
        let known = self.old.contains(flow);
        if known {
            self.add(*flow);
        }
        known
    }

    /// Remembers one.
    pub fn add(&mut self, flow: Flow) {
        if self.young.len() >= Self::MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(flow);
    }
}

/// Those that programs on this host have begun, whose ports are others' when they are gone. What a guest sends keeps none
/// of them.
#[derive(Debug)]
pub(super) struct Callers {
    young: HashSet<Flow>,
    old: HashSet<Flow>,
    /// When the young ones began to be collected.
    since: Instant,
}

impl Callers {
    /// How long one is kept that says nothing more, at least, and at most twice as long: passt's own limit.
    pub const PATIENCE: Duration = Duration::from_secs(180);

    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
            since: now,
        }
    }

    /// One that has said something.
    pub fn heard(&mut self, flow: Flow, now: Instant) {
        self.forget(now);
        if self.young.len() >= Flows::MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(flow);
    }

    /// Has it said something lately?
    pub fn has(&mut self, flow: &Flow, now: Instant) -> bool {
        self.forget(now);
        self.young.contains(flow) || self.old.contains(flow)
    }

    fn forget(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < Self::PATIENCE {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if age >= Self::PATIENCE * 2 {
            self.old.clear();
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_forgotten_who_say_nothing_however_much_is_said_to_them() {
        let flow = |port| Flow {
            protocol: 17,
            remote: Ipv4Addr::LOCALHOST,
            remote_port: port,
            guest_port: 53,
        };
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut callers = Callers::new(begin);
        callers.heard(flow(1), begin);
        callers.heard(flow(2), begin);
        for seconds in (0..=1000).step_by(50) {
            callers.heard(flow(2), at(seconds));
            let (one, two) = (
                callers.has(&flow(1), at(seconds)),
                callers.has(&flow(2), at(seconds)),
            );
            assert_eq!((one, two), (seconds < 400, true), "{seconds}");
        }
        assert!(!callers.has(&flow(2), at(2000)));
        for port in 0..30_000 {
            callers.heard(flow(port), at(2000));
        }
        assert!(callers.young.len().max(callers.old.len()) <= Flows::MOST);
    }

    #[test]
    fn those_that_are_seen_stay_and_others_make_room() {
        let flow = |number: u32| Flow {
            protocol: 6,
            remote: Ipv4Addr::from_bits(number),
            remote_port: 80,
            guest_port: 4000,
        };
        let mut flows = Flows::default();
        flows.add(flow(1));
        flows.add(flow(2));
        for number in 3..4 * Flows::MOST as u32 {
            flows.add(flow(number));
            assert!(flows.know(&flow(1)), "{number}");
        }
        assert!(!flows.know(&flow(2)));
        assert!(flows.young.len().max(flows.old.len()) <= Flows::MOST);
    }
}
