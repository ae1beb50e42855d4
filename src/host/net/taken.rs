//! What guests' networks come to: which are taken, and how many guests there are in each network namespace. It is kept in
//! the leases' [roll](crate::state::roll), so that a start need not read all leases.

use super::look::Seen;
use super::namespace::Namespace;
use super::record::Record;
use crate::config::Subnet;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Where networks are taken from, in this order: the first range that no route of the host touches but those
/// to kvmlet's own interfaces.
pub(super) const RANGES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 107, 0, 0), 16),
    (Ipv4Addr::new(172, 30, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 107, 0), 24),
];
/// A network, two hosts, and a broadcast address.
pub(super) const PREFIX: u8 = 30;
/// How many addresses a network has.
const SIZE: u32 = 1 << (32 - PREFIX);

/// Networks of [`PREFIX`] within one range, as numbers: the first of some that follow on one another, and how many they are.
type Runs = Vec<(u32, u32)>;

/// What all leases come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    runs: [Runs; RANGES.len()],
    guests: Vec<Guests>,
    /// Some are taken twice, or in part, so it does not say what is free once a lease has gone.
    is_blurred: bool,
}

/// Those of one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Guests {
    namespace: u64,
    cookie: u64,
    count: u32,
    /// What starts have seen there.
    #[serde(default)]
    seen: Option<Seen>,
}

impl Taken {
    pub fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut taken = Self::default();
        records.for_each(|record| taken.add(record));
        taken
    }

    /// Adds a lease.
    pub fn add(&mut self, record: &Record) {
        match self.guests.iter_mut().find(|guests| guests.are_of(record)) {
            Some(guests) => guests.count += 1,
            None => self.guests.push(Guests {
                namespace: record.namespace,
                cookie: record.cookie,
                count: 1,
                seen: None,
            }),
        }
        let Ok(subnet) = record.subnet.parse::<Subnet>() else {
            return;
        };
        for (runs, range) in self.runs.iter_mut().zip(RANGES) {
            if let Some((first, count, is_whole)) = numbers(subnet, range) {
                self.is_blurred |= !add(runs, first, count) || !is_whole;
            }
        }
    }

    /// Takes a lease from them. False where that cannot be told from this alone: then they are to be counted.
    pub fn subtract(&mut self, record: &Record) -> bool {
        if let Some(guests) = self.guests.iter_mut().find(|guests| guests.are_of(record)) {
            guests.count = guests.count.saturating_sub(1);
        }
        self.guests.retain(|guests| guests.count > 0);
        if let Ok(subnet) = record.subnet.parse::<Subnet>() {
            for (runs, range) in self.runs.iter_mut().zip(RANGES) {
                if let Some((first, count, _)) = numbers(subnet, range) {
                    subtract(runs, first, count);
                }
            }
        }
        !self.is_blurred
    }

    /// How many guests there are in a namespace.
    pub fn guests(&self, here: Namespace) -> u32 {
        let here = |guests: &&Guests| here.is(guests.namespace, guests.cookie);
        self.guests.iter().filter(here).map(|it| it.count).sum()
    }

    /// What starts have seen in a namespace.
    pub fn seen(&self, here: Namespace) -> Option<&Seen> {
        let mut guests = self.guests.iter();
        guests
            .find(|guests| here.is(guests.namespace, guests.cookie))
            .and_then(|guests| guests.seen.as_ref())
    }

    /// Notes what the start of this guest has seen.
    pub fn see(&mut self, record: &Record, seen: Seen) {
        let guests = self.guests.iter_mut().find(|guests| guests.are_of(record));
        if let Some(guests) = guests {
            guests.seen = Some(seen);
        }
    }

    /// Takes over what starts have seen.
    pub fn see_again(&mut self, before: &Self) {
        for guests in &mut self.guests {
            let mut others = before.guests.iter();
            let same = others
                .find(|other| (other.namespace, other.cookie) == (guests.namespace, guests.cookie));
            guests.seen = same.and_then(|same| same.seen.clone());
        }
    }

    /// All that is taken of the ranges: first and last addresses.
    pub fn ends(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let ranges = self.runs.iter().zip(RANGES);
        ranges.flat_map(|(runs, (start, _))| {
            let address = move |number: u32| start.to_bits() + number * SIZE;
            let ends = move |run: &(u32, u32)| (address(run.0), address(run.0 + run.1) - 1);
            runs.iter().map(ends)
        })
    }

    /// A number that no lease stands for, as long as there are few enough.
    pub fn number(&self) -> Option<u32> {
        let (start, _) = RANGES[0];
        let free = self.free(0).next()?;
        Some((free.address().to_bits() - start.to_bits()) / SIZE)
    }

    /// The first networks of a range that are free, in order.
    pub fn free(&self, range: usize) -> impl Iterator<Item = Subnet> + '_ {
        let (start, prefix) = RANGES[range];
        let mut runs = self.runs[range].iter().copied().peekable();
        let mut number = 0;
        std::iter::from_fn(move || {
            while let Some((first, count)) = runs.next_if(|(first, _)| *first <= number) {
                number = number.max(first + count);
            }
            let free = number;
            number += 1;
            let address = Ipv4Addr::from_bits(start.to_bits() + free * SIZE);
            let is_within = free < 1 << (PREFIX - prefix);
            is_within.then(|| Subnet::new(address, PREFIX))?
        })
    }
}

impl Guests {
    fn are_of(&self, record: &Record) -> bool {
        (self.namespace, self.cookie) == (record.namespace, record.cookie)
    }
}

/// The first number of what a network has of a range, how many there are, and whether it is one and no other; none where it
/// has nothing of it.
fn numbers(subnet: Subnet, (start, prefix): (Ipv4Addr, u8)) -> Option<(u32, u32, bool)> {
    let (first, last) = ends(subnet);
    let start = start.to_bits();
    let end = start | u32::MAX >> prefix;
    if first > end || last < start {
        return None;
    }
    let first = (first.max(start) - start) / SIZE;
    let last = (last.min(end) - start) / SIZE;
    Some((first, last - first + 1, subnet.prefix() == PREFIX))
}

/// First and last address.
pub(super) fn ends(subnet: Subnet) -> (u32, u32) {
    let first = subnet.address().to_bits();
    (first, first | !subnet.mask())
}

/// Adds numbers; false where some were there.
fn add(runs: &mut Runs, first: u32, count: u32) -> bool {
    let (mut start, mut end, mut all) = (first, first + count, count);
    // Those that it touches become one with it.
    let from = runs.partition_point(|(first, count)| first + count < start);
    let to = runs.partition_point(|(first, _)| *first <= end);
    for (first, count) in runs.drain(from..to.max(from)) {
        start = start.min(first);
        end = end.max(first + count);
        all += count;
    }
    runs.insert(from, (start, end - start));
    end - start == all
}

fn subtract(runs: &mut Runs, first: u32, count: u32) {
    let end = first + count;
    let left = runs.iter().flat_map(|(start, count)| {
        let stop = start + count;
        [(*start, stop.min(first)), (end.max(*start), stop)]
    });
    *runs = left
        .filter(|(start, stop)| start < stop)
        .map(|(start, stop)| (start, stop - start))
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn record(subnet: &str) -> Record {
        Record::of(subnet, 1)
    }

    fn free(taken: &Taken, range: usize, most: usize) -> Vec<String> {
        let free = taken.free(range).take(most);
        free.map(|subnet| subnet.to_string()).collect()
    }

    #[test]
    fn what_is_free_is_known() {
        let mut taken = Taken::default();
        for subnet in [
            "10.107.0.0/30",
            "10.107.0.8/30",
            "10.107.0.4/30",
            "10.1.0.0/30",
        ] {
            taken.add(&record(subnet));
        }
        assert_eq!(taken.runs[0], [(0, 3)]);
        assert_eq!(free(&taken, 0, 1), ["10.107.0.12/30"]);
        assert!(taken.subtract(&record("10.107.0.4/30")));
        assert_eq!(free(&taken, 0, 2), ["10.107.0.4/30", "10.107.0.12/30"]);
        assert_eq!(free(&taken, 2, 100).len(), 64);
        let here = Namespace {
            inode: 7,
            cookie: 8,
        };
        assert_eq!(taken.guests(here), 3);
        assert_eq!(
            taken.guests(Namespace {
                inode: 7,
                cookie: 9
            }),
            0
        );
        let ends: Vec<_> = taken.ends().collect();
        let at = |last: u8| Ipv4Addr::new(10, 107, 0, last).to_bits();
        assert_eq!(ends, [(at(0), at(3)), (at(8), at(11))]);
        // What others have of it is not known any more once one of them has gone.
        taken.add(&record("10.107.0.0/24"));
        assert_eq!(free(&taken, 0, 1), ["10.107.1.0/30"]);
        assert!(!taken.subtract(&record("10.107.0.0/24")));
        let all = ["10.0.0.0/8", "172.0.0.0/8", "192.0.0.0/8"].map(record);
        let all = Taken::of(all.iter());
        assert_eq!([0, 1, 2].map(|range| all.free(range).count()), [0; 3]);
    }

    proptest! {
        #[test]
        fn runs_are_what_was_added_and_not_subtracted(
            changes in proptest::collection::vec((any::<bool>(), 0_u32..40, 1_u32..5), 1..60)
        ) {
            let (mut runs, mut set) = (Runs::new(), BTreeSet::new());
            for (adds, first, count) in changes {
                let numbers = first..first + count;
                if adds {
                    let new = numbers.clone().all(|number| !set.contains(&number));
                    prop_assert_eq!(add(&mut runs, first, count), new);
                    set.extend(numbers);
                } else {
                    subtract(&mut runs, first, count);
                    set.retain(|number| !numbers.contains(number));
                }
                let all: Vec<u32> = runs.iter().flat_map(|(at, count)| *at..at + count).collect();
                prop_assert!(all.iter().eq(set.iter()));
                prop_assert!(runs.is_sorted());
            }
        }
    }
}
