//! What all promises come to.

use super::{Entry, Host, Promise};
use crate::config::{CpuSet, Factor, Overcommit};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Sums over VMs that run, and over some that were killed and nobody has cleared away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    vms: usize,
    cpu_milli: u64,
    /// VMs with a quota that are bound to CPUs: where there are some, a sum does not tell whether there is room.
    bound: usize,
    memory_bytes: u64,
    /// The part of it that cannot be shared.
    reserved_bytes: u64,
    /// Cgroups around those of VMs that kvmlet has made, and maybe some that it had made.
    shared: Vec<PathBuf>,
}

impl Totals {
    pub fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut totals = Self::default();
        entries.for_each(|entry| totals.add(entry));
        totals
    }

    pub fn add(&mut self, entry: &Entry) {
        self.change(&entry.promise, usize::saturating_add, u64::saturating_add);
        for path in &entry.shared {
            if !self.shared.contains(path) {
                self.shared.push(path.clone());
            }
        }
    }

    pub fn subtract(&mut self, entry: &Entry) {
        self.change(&entry.promise, usize::saturating_sub, u64::saturating_sub);
        if self.vms == 0 {
            self.shared.clear();
        }
    }

    fn change(
        &mut self,
        promise: &Promise,
        count: fn(usize, usize) -> usize,
        sum: fn(u64, u64) -> u64,
    ) {
        let is_bound = promise.cpu_milli > 0 && promise.cpus.is_some();
        let reserved = if promise.reserved {
            promise.memory_bytes
        } else {
            0
        };
        self.vms = count(self.vms, 1);
        self.cpu_milli = sum(self.cpu_milli, promise.cpu_milli.into());
        self.bound = count(self.bound, is_bound.into());
        self.memory_bytes = sum(self.memory_bytes, promise.memory_bytes);
        self.reserved_bytes = sum(self.reserved_bytes, reserved);
    }

    /// Is there room for one more for sure? If not, it takes a look at each VM to say so.
    pub fn have_room(&self, asked: &Promise, overcommit: Overcommit, host: &Host) -> bool {
        self.have_cpu(asked, overcommit.cpus, &host.cpus)
            && self.have_memory(asked, overcommit.memory, host)
    }

    fn have_cpu(&self, asked: &Promise, factor: Factor, cpus: &CpuSet) -> bool {
        let limit = factor.of(cpus.len() as u64 * 1000);
        let sum = self.cpu_milli.saturating_add(asked.cpu_milli.into());
        asked.cpu_milli == 0 || (self.bound == 0 && asked.cpus.is_none() && sum <= limit)
    }

    fn have_memory(&self, asked: &Promise, factor: Factor, host: &Host) -> bool {
        let with = |bytes: u64| bytes.saturating_add(asked.memory_bytes);
        // Of what others have reserved they may have taken nothing yet.
        let is_there = || with(self.reserved_bytes) <= (host.available_bytes)();
        with(self.memory_bytes) <= factor.of(host.memory_bytes)
            && (!asked.reserved || (with(self.reserved_bytes) <= host.memory_bytes && is_there()))
    }

    /// Cgroups that VMs have around theirs in common.
    pub fn shared(&self) -> impl Iterator<Item = &PathBuf> {
        self.shared.iter()
    }
}
