//! Can each VM have its share on the CPUs that it is bound to?
//!
//! The sum alone does not tell: of two CPUs, two VMs cannot have one each if both are bound to the same. What
//! is asked is a flow of CPU time from VMs to CPUs; where it does not exist, the search for one ends at the
//! CPUs that are too few (Hall's theorem), which are what a person wants to know.

use crate::config::CpuSet;

/// CPUs of which more is promised to the VMs that are bound to them than they have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tight {
    pub cpus: CpuSet,
    /// All that is promised of them, in the unit of the demands.
    pub promised: u64,
}

/// Places demands on CPUs, each of which gives `capacity`.
pub(super) fn place(demands: &[(CpuSet, u64)], capacity: u64) -> Result<(), Tight> {
    let mut flow = Flow::new(demands, capacity);
    for group in 0..flow.groups.len() {
        let mut left = flow.groups[group].1;
        while left > 0 {
            left -= flow.push(group, left)?;
        }
    }
    Ok(())
}

/// Who gets how much of which CPU. VMs with the same set are one group.
struct Flow {
    groups: Vec<(CpuSet, u64)>,
    cpus: Vec<u16>,
    spare: Vec<u64>,
    /// By group and CPU.
    given: Vec<Vec<u64>>,
}

impl Flow {
    fn new(demands: &[(CpuSet, u64)], capacity: u64) -> Self {
        let mut groups: Vec<(CpuSet, u64)> = Vec::new();
        for (set, amount) in demands {
            match groups.iter_mut().find(|(other, _)| other == set) {
                Some((_, sum)) => *sum += amount,
                None => groups.push((set.clone(), *amount)),
            }
        }
        let all = CpuSet::from_cpus(groups.iter().flat_map(|(set, _)| set.iter()));
        let cpus: Vec<u16> = all.iter().flat_map(CpuSet::iter).collect();
        Self {
            spare: vec![capacity; cpus.len()],
            given: vec![vec![0; cpus.len()]; groups.len()],
            groups,
            cpus,
        }
    }

    /// Gives a group more, up to `amount`, where others move over if need be. Returns how much.
    fn push(&mut self, group: usize, amount: u64) -> Result<u64, Tight> {
        // A search in breadth. From a group one comes to the CPUs of its set, and from a CPU to the groups that
        // have some of it. Each CPU knows through whom it was found, and each group through which CPU.
        let mut cpu_by: Vec<Option<usize>> = vec![None; self.cpus.len()];
        let mut group_by: Vec<Option<usize>> = vec![None; self.groups.len()];
        let mut queue = std::collections::VecDeque::from([group]);
        while let Some(from) = queue.pop_front() {
            for cpu in 0..self.cpus.len() {
                if cpu_by[cpu].is_some() || !self.groups[from].0.contains(self.cpus[cpu]) {
                    continue;
                }
                cpu_by[cpu] = Some(from);
                if self.spare[cpu] > 0 {
                    return Ok(self.shift(group, cpu, amount, &cpu_by, &group_by));
                }
                for (other, by) in group_by.iter_mut().enumerate() {
                    if other != group && by.is_none() && self.given[other][cpu] > 0 {
                        *by = Some(cpu);
                        queue.push_back(other);
                    }
                }
            }
        }
        let found = (0..self.cpus.len()).filter(|cpu| cpu_by[*cpu].is_some());
        let found = CpuSet::from_cpus(found.map(|cpu| self.cpus[cpu]));
        // A set has a CPU at least, and all CPUs of the group were found.
        let cpus = found.unwrap_or_else(|| self.groups[group].0.clone());
        let bound = self
            .groups
            .iter()
            .filter(|(set, _)| set.beyond(&cpus).is_none());
        Err(Tight {
            promised: bound.map(|(_, amount)| amount).sum(),
            cpus,
        })
    }

    /// Moves what was found: `cpu` gives to who came to it, who gives back as much of where it came from, and
    /// so on to the group that the search began with.
    fn shift(
        &mut self,
        group: usize,
        cpu: usize,
        amount: u64,
        cpu_by: &[Option<usize>],
        group_by: &[Option<usize>],
    ) -> u64 {
        let mut moves = Vec::new();
        let mut amount = amount.min(self.spare[cpu]);
        let mut to = cpu;
        while let Some(who) = cpu_by[to] {
            let from = group_by[who].filter(|_| who != group);
            moves.push((who, to, from));
            let Some(from) = from else { break };
            amount = amount.min(self.given[who][from]);
            to = from;
        }
        self.spare[cpu] -= amount;
        for (who, to, from) in moves {
            self.given[who][to] += amount;
            if let Some(from) = from {
                self.given[who][from] -= amount;
            }
        }
        amount
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn those_who_can_move_make_room() {
        let free = (set("0-2"), 1000);
        assert_eq!(place(&[], 1000), Ok(()));
        assert_eq!(place(&[free.clone(), (set("0"), 1000)], 1000), Ok(()));
        let chain = [free.clone(), (set("0-1"), 1000), (set("0"), 1000)];
        assert_eq!(place(&chain, 1000), Ok(()));
        let tight = place(&[free.clone(), (set("0"), 600), (set("0"), 600)], 1000);
        assert_eq!(
            tight,
            Err(Tight {
                cpus: set("0"),
                promised: 1200
            })
        );
        assert_eq!(place(&[(set("0"), 600), (set("0"), 600)], 1200), Ok(()));
        let all = place(&[free, (set("0"), 1000), (set("1-2"), 1001)], 1000);
        assert_eq!(
            all,
            Err(Tight {
                cpus: set("0-2"),
                promised: 3001
            })
        );
    }

    proptest! {
        #[test]
        fn it_is_refused_exactly_when_some_cpus_are_too_few(
            demands in prop::collection::vec((1u16..32, 0u64..20), 0..7)
        ) {
            let bits = |mask: u16| CpuSet::from_cpus((0..5).filter(move |cpu| mask >> cpu & 1 == 1));
            let sets: Vec<(CpuSet, u64)> =
                demands.iter().map(|(mask, amount)| (bits(*mask).unwrap(), *amount)).collect();
            // Hall's condition, for all sets of CPUs.
            let bound = |cpus: u16| -> u64 {
                demands.iter().filter(|(mask, _)| mask & !cpus == 0).map(|(_, amount)| amount).sum()
            };
            let fits = (1u16..32).all(|cpus| bound(cpus) <= 10 * u64::from(cpus.count_ones()));
            match place(&sets, 10) {
                Ok(()) => prop_assert!(fits),
                Err(tight) => {
                    prop_assert!(!fits);
                    let mask = tight.cpus.iter().fold(0, |mask, cpu| mask | 1 << cpu);
                    prop_assert_eq!(tight.promised, bound(mask));
                    prop_assert!(tight.promised > 10 * tight.cpus.len() as u64);
                }
            }
        }
    }
}
