//! What running VMs were promised of this host, and whether one more can be.
//!
//! A [claim](crate::state::claims) for each VM says how much CPU time and memory it was promised. A new one is
//! admitted while the ledger is locked, so two that start at the same instant cannot both take the last share.
//! There is no daemon: whoever comes next clears what a killed VM had.
//!
//! A start does not read them all: what they come to is in a roll, which also tells whether a VM
//! was killed. All are read when it does, when it cannot be believed, and before anybody is refused anything.
//!
//! A VM without a CPU quota is promised no CPU time (its weight decides what it gets) and counts for none.
//! Every VM counts with its memory. Users have ledgers of their own, so VMs of other users are not seen.

mod checks;
mod error;
mod placement;
mod totals;

pub use error::Error;

use crate::config::{CpuQuota, CpuSet, HugePages, MemoryMode, Overcommit, VmConfig};
use crate::shares::cgroup::{self, Cgroup, Plan};
use crate::state::claims::{self, Claim, Claims, Leftover};
use crate::state::roll::{Cell, Roll};
use crate::state::runtime::RuntimeDirectory;
use checks::{Others, check_set};
use kvmlet_sys::facts::ReservedPages;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use totals::Totals;

const DIRECTORY: &str = "ledger";

/// What a host has to give.
#[derive(Clone, Debug)]
pub struct Host {
    /// The CPUs that this process may use.
    pub cpus: CpuSet,
    /// RAM in bytes, without what is set aside for [huge pages](HugePages::Reserved).
    pub memory_bytes: u64,
    /// Tells how much of it is available now, in bytes.
    pub available_bytes: fn() -> u64,
}

impl Host {
    /// This host.
    ///
    /// # Errors
    /// When the kernel does not tell which CPUs this process may use.
    pub fn here() -> Result<Self, Error> {
        use rustix::thread::CpuSet as Mask;
        let mask = rustix::thread::sched_getaffinity(None);
        let mask = mask.map_err(|error| Error::Cpus(error.into()))?;
        let cpus = (0..Mask::MAX_CPU).filter(|cpu| mask.is_set(*cpu));
        let cpus = CpuSet::from_cpus(cpus.filter_map(|cpu| u16::try_from(cpu).ok()));
        let pool = ReservedPages::total() * HugePages::Reserved.page_bytes();
        Ok(Self {
            cpus: cpus.ok_or_else(|| Error::Cpus(std::io::ErrorKind::InvalidData.into()))?,
            memory_bytes: crate::total_memory_bytes().saturating_sub(pool),
            available_bytes: crate::available_memory_bytes,
        })
    }
}

/// What a VM asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// CPU time, in thousandths of a CPU; 0 if nothing is promised.
    pub cpu_milli: u32,
    /// The CPUs to which it is bound, if it is.
    pub cpus: Option<CpuSet>,
    /// Memory in bytes, without reserved huge pages, for which the kernel keeps its own ledger.
    pub memory_bytes: u64,
    /// Can the memory not be shared?
    pub reserved: bool,
}

impl Promise {
    /// What a configuration asks for.
    pub fn of(config: &VmConfig) -> Self {
        let ram = match config.huge_pages {
            HugePages::Reserved => 0,
            HugePages::Off | HugePages::Transparent => config.memory.bytes(),
        };
        let mode = config.quota.memory_mode(config.huge_pages);
        Self {
            cpu_milli: config.quota.cpu.map_or(0, CpuQuota::milli),
            cpus: config.quota.cpus.clone(),
            memory_bytes: ram.saturating_add(config.overhead().bytes()),
            reserved: mode == MemoryMode::Reserved || config.prefault,
        }
    }
}

/// What is written down for a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    pid: u32,
    promise: Promise,
    /// Those for this VM alone.
    cgroups: Vec<PathBuf>,
    /// Those around them that kvmlet has made, or would have if they had not been there.
    #[serde(default)]
    shared: Vec<PathBuf>,
    /// Where the roll tells of its end.
    #[serde(default)]
    cell: Option<u32>,
}

impl Entry {
    /// Leaves out what kvmlet cannot have written in the note of this name.
    fn doubt(&mut self, name: &str) {
        let around = |path: &PathBuf| cgroup::is_cgroup_around(path, &self.cgroups, name);
        self.shared.retain(around);
        let ours = |path: &PathBuf| cgroup::is_cgroup_of(path, name);
        self.cgroups.retain(ours);
    }
}

/// All promises, locked against other processes until this value is dropped.
pub struct Ledger {
    claims: Claims<Entry>,
    roll: Roll<Totals>,
    /// Those that run, if they have been looked at one by one.
    live: Option<Vec<Entry>>,
}

impl Ledger {
    /// Locks the ledger in a runtime directory, and clears what VMs that were killed have left over.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn lock(runtime: &RuntimeDirectory) -> Result<Self, Error> {
        let claims = Claims::<Entry>::lock(runtime, DIRECTORY)?;
        let roll = Roll::open(claims.directory()).map_err(|error| claims.failed(error))?;
        let mut ledger = Self {
            claims,
            roll,
            live: None,
        };
        if !ledger.roll.is_calm() && !ledger.clear_ended()? {
            ledger.count()?;
        }
        Ok(ledger)
    }

    /// Clears what those have left over whose end the roll tells of. Is there nothing else to clear, as far as it knows?
    fn clear_ended(&mut self) -> Result<bool, Error> {
        let Some(ended) = self.roll.ended() else {
            return Ok(false);
        };
        for (cell, name) in ended {
            let Some((name, Some(entry))) = self.claims.leftover(&name)? else {
                return Ok(false);
            };
            if entry.cell != Some(cell) {
                return Ok(false);
            }
            self.roll
                .spoil()
                .map_err(|error| self.claims.failed(error))?;
            if self.clear((name, Some(entry.clone()))).is_some() {
                return Ok(false);
            }
            let settle = |totals: &mut Totals| totals.subtract(&entry);
            let directory = self.claims.directory();
            let left = self.roll.leave(directory, Some(cell), settle, || ());
            left.map_err(|error| self.claims.failed(error))?;
        }
        Ok(true)
    }

    /// Looks at all VMs, and clears what killed ones have left over.
    fn count(&mut self) -> Result<&[Entry], Error> {
        if self.live.is_none() {
            let (mut live, stale) = self.claims.all()?;
            live.extend(stale.into_iter().filter_map(|left| self.clear(left)));
            let cells = live.iter().map(|entry| entry.cell);
            let totals = Totals::of(live.iter());
            let directory = self.claims.directory();
            let counted = self.roll.recount(directory, totals, cells, [].into_iter());
            counted.map_err(|error| self.claims.failed(error))?;
            self.live = Some(live);
        }
        Ok(self.live.as_deref().unwrap_or_default())
    }

    /// Clears what a killed VM has left over; returns what cannot be.
    fn clear(&self, (name, mut entry): Leftover<Entry>) -> Option<Entry> {
        entry.iter_mut().for_each(|entry| entry.doubt(&name));
        let cgroups = entry.as_ref().map_or(&[][..], |entry| &entry.cgroups);
        match (cgroup::remove_left_over(cgroups), entry) {
            (Err(error), Some(entry)) => {
                // Whoever is still in there has what was promised.
                log::warn!(
                    "a VM that was killed (process {}) is not gone: {error}",
                    entry.pid
                );
                // It is to be tried again each time.
                Some(Entry {
                    cell: None,
                    ..entry
                })
            }
            (_, entry) => {
                cgroup::remove_unused(entry.as_ref().map_or(&[][..], |entry| &entry.shared));
                self.claims.remove(&name);
                None
            }
        }
    }

    /// What running VMs were promised.
    ///
    /// # Errors
    /// When the notes cannot be read.
    pub fn promises(&mut self) -> Result<impl ExactSizeIterator<Item = &Promise> + Clone, Error> {
        Ok(self.count()?.iter().map(|entry| &entry.promise))
    }

    /// Promises a VM what it asks for, and makes the cgroup that holds it to that.
    ///
    /// # Errors
    /// When the host has not as much left, with all figures; or when the cgroup cannot be made.
    pub fn admit(
        mut self,
        promise: Promise,
        overcommit: Overcommit,
        host: &Host,
        mut plan: Option<Plan>,
    ) -> Result<Share, Error> {
        check_set(&promise, host)?;
        let known = self.roll.totals().filter(|_| self.live.is_none());
        if !known.is_some_and(|totals| totals.have_room(&promise, overcommit, host)) {
            let others = Others(self.count()?);
            others.check_cpu(&promise, overcommit, host)?;
            others.check_memory(&promise, overcommit, host)?;
        }
        let mut totals = self.roll.totals().cloned().unwrap_or_default();
        if let Some(plan) = &mut plan {
            plan.share_with(totals.shared());
        }
        let mut entry = Entry {
            pid: std::process::id(),
            promise,
            cgroups: plan.as_ref().map(Plan::directories).unwrap_or_default(),
            shared: plan.as_ref().map(Plan::shared).unwrap_or_default(),
            cell: None,
        };
        let name = plan
            .as_ref()
            .map_or_else(cgroup::unique_name, |plan| plan.name().into());
        totals.add(&entry);
        let Self { claims, roll, .. } = &mut self;
        let entered = roll.enter(claims.directory(), &name, totals, |cell| {
            entry.cell = cell;
            claims.try_claim(&name, entry)
        });
        let entered = entered.map_err(|error| claims.failed(error))?;
        let mut share = Share {
            claim: entered.0,
            _cell: entered.1,
            cgroup: None,
            abandoned: false,
        };
        // Others can be admitted while this one's cgroup is made.
        drop(self);
        share.cgroup = plan.map(Cgroup::create).transpose()?;
        Ok(share)
    }
}

/// What one VM was promised, as long as this value lives, and the cgroup that holds the VM to it. Dropping it
/// kills whoever is in the cgroup, removes it, and gives the share back.
pub struct Share {
    claim: Claim<Entry>,
    _cell: Option<Cell>,
    cgroup: Option<Cgroup>,
    abandoned: bool,
}

impl Share {
    /// The cgroup, if there was a plan for one.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Leaves giving back to the process that this one was forked from, and keeps no more than the cgroup: what
    /// is noted is out of reach for this process from now on.
    pub fn abandon(mut self) -> Option<Cgroup> {
        self.abandoned = true;
        let mut cgroup = self.cgroup.take();
        cgroup.iter_mut().for_each(Cgroup::abandon);
        cgroup
    }

    fn give_back(&self) -> Result<(), claims::Error> {
        let claims = self.claim.lock_directory()?;
        let directory = claims.directory();
        let mut roll = Roll::<Totals>::open(directory).map_err(|error| claims.failed(error))?;
        let entry = &self.claim.record;
        let settle = |totals: &mut Totals| totals.subtract(entry);
        let left = roll.leave(directory, entry.cell, settle, || self.claim.release());
        left.map_err(|error| claims.failed(error))
    }

    /// Has whoever comes next look at what is left: this owner ends by itself, and nobody would see that it has.
    fn leave_over(&self) -> Result<(), claims::Error> {
        let claims = self.claim.lock_directory()?;
        let roll = Roll::<Totals>::open(claims.directory());
        roll.and_then(|roll| roll.spoil())
            .map_err(|error| claims.failed(error))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.abandoned {
            return;
        }
        let removed = self.cgroup.as_mut().map_or(Ok(()), Cgroup::remove);
        match removed {
            Ok(()) => {
                if let Err(error) = self.give_back() {
                    // Nobody waits for that: whoever comes next counts.
                    log::debug!("{error}");
                    self.claim.release();
                }
            }
            // The next command finds the claim and tries again.
            Err(error) => {
                log::warn!("the share of a VM is left over: {error}");
                if let Err(error) = self.leave_over() {
                    log::warn!("it is cleared when somebody is short of it: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod roll_tests;
#[cfg(test)]
mod tests;
