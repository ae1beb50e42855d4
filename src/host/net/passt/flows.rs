//! Conversations that may go on, as far as they are remembered.

use std::collections::HashSet;
use std::net::Ipv4Addr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
