//! What running VMs were promised of this host, and whether one more can be.
//!
//! A [claim](crate::state::claims) for each VM says how much CPU time and memory it was promised. A new one is
//! admitted while the ledger is locked, so two that start at the same instant cannot both take the last share.
//! There is no daemon: whoever comes next clears what a killed VM had.
//!
//! A VM without a CPU quota is promised no CPU time (its weight decides what it gets) and counts for none.
//! Every VM counts with its memory. Users have ledgers of their own, so VMs of other users are not seen.

mod error;
mod placement;

pub use error::Error;

use crate::config::{CpuQuota, CpuSet, HugePages, MemoryMode, Overcommit, VmConfig};
use crate::shares::cgroup::{self, Cgroup, Plan};
use crate::state::claims::{Claim, Claims};
use crate::state::runtime::RuntimeDirectory;
use kvmlet_sys::facts::ReservedPages;
use kvmlet_sys::process::resident_bytes_with_children;
use placement::{Tight, place};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    live: Vec<Entry>,
}

impl Ledger {
    /// Locks the ledger in a runtime directory, and clears what VMs that were killed have left over.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn lock(runtime: &RuntimeDirectory) -> Result<Self, Error> {
        let claims = Claims::<Entry>::lock(runtime, DIRECTORY)?;
        let (mut live, stale) = claims.all()?;
        for (name, mut entry) in stale {
            entry.iter_mut().for_each(|entry| entry.doubt(&name));
            let cgroups = entry.as_ref().map_or(&[][..], |entry| &entry.cgroups);
            let removed = cgroup::remove_left_over(cgroups);
            match (removed, entry) {
                (Err(error), Some(entry)) => {
                    // Whoever is still in there has what was promised.
                    log::warn!(
                        "a VM that was killed (process {}) is not gone: {error}",
                        entry.pid
                    );
                    live.push(entry);
                }
                (_, entry) => {
                    cgroup::remove_unused(entry.as_ref().map_or(&[][..], |entry| &entry.shared));
                    claims.remove(&name);
                }
            }
        }
        Ok(Self { claims, live })
    }

    /// What running VMs were promised.
    pub fn promises(&self) -> impl ExactSizeIterator<Item = &Promise> + Clone {
        self.live.iter().map(|entry| &entry.promise)
    }

    /// Promises a VM what it asks for, and makes the cgroup that holds it to that.
    ///
    /// # Errors
    /// When the host has not as much left, with all figures; or when the cgroup cannot be made.
    pub fn admit(
        self,
        promise: Promise,
        overcommit: Overcommit,
        host: &Host,
        mut plan: Option<Plan>,
    ) -> Result<Share, Error> {
        self.check_cpu(&promise, overcommit, host)?;
        self.check_memory(&promise, overcommit, host)?;
        if let Some(plan) = &mut plan {
            plan.share_with(self.live.iter().flat_map(|entry| &entry.shared));
        }
        let entry = Entry {
            pid: std::process::id(),
            promise,
            cgroups: plan.as_ref().map(Plan::directories).unwrap_or_default(),
            shared: plan.as_ref().map(Plan::shared).unwrap_or_default(),
        };
        let name = plan
            .as_ref()
            .map_or_else(cgroup::unique_name, |plan| plan.name().into());
        let mut share = Share {
            claim: self.claims.claim(&name, entry)?,
            cgroup: None,
            abandoned: false,
        };
        // Others can be admitted while this one's cgroup is made.
        drop(self);
        share.cgroup = plan.map(Cgroup::create).transpose()?;
        Ok(share)
    }

    fn check_cpu(&self, asked: &Promise, overcommit: Overcommit, host: &Host) -> Result<(), Error> {
        if let Some(cpus) = &asked.cpus
            && let Some(lacking) = cpus.beyond(&host.cpus)
        {
            return Err(Error::NoSuchCpu {
                asked: cpus.clone(),
                lacking,
                host: host.cpus.clone(),
            });
        }
        if asked.cpu_milli == 0 {
            return Ok(());
        }
        let factor = overcommit.cpus;
        let limit = |cpus: &CpuSet| factor.of(cpus.len() as u64 * 1000);
        let others = self.promises().filter(|promise| promise.cpu_milli > 0);
        let promised = others
            .clone()
            .map(|promise| u64::from(promise.cpu_milli))
            .sum();
        if promised + u64::from(asked.cpu_milli) > limit(&host.cpus) {
            return Err(Error::Cpu {
                asked: asked.cpu_milli.into(),
                promised,
                limit: limit(&host.cpus),
                vms: others.count(),
                cpus: host.cpus.clone(),
                factor,
            });
        }
        let all = others.chain([asked]);
        if all.clone().all(|promise| promise.cpus.is_none()) {
            return Ok(());
        }
        let demands: Vec<(CpuSet, u64)> = all
            .map(|promise| {
                let cpus = promise.cpus.as_ref().unwrap_or(&host.cpus);
                (cpus.clone(), promise.cpu_milli.into())
            })
            .collect();
        place(&demands, factor.of(1000)).map_err(|Tight { cpus, promised }| Error::BoundCpus {
            asked: asked.cpu_milli.into(),
            promised,
            limit: limit(&cpus),
            cpus,
            factor,
        })
    }

    fn check_memory(
        &self,
        asked: &Promise,
        overcommit: Overcommit,
        host: &Host,
    ) -> Result<(), Error> {
        let sum = |reserved_only: bool| {
            let counted = self
                .promises()
                .filter(|promise| promise.reserved || !reserved_only);
            let bytes = counted.clone().map(|promise| promise.memory_bytes);
            (bytes.fold(0, u64::saturating_add), counted.count())
        };
        let (promised, vms) = sum(false);
        let limit = overcommit.memory.of(host.memory_bytes);
        if promised.saturating_add(asked.memory_bytes) > limit {
            return Err(Error::Memory {
                asked: asked.memory_bytes,
                promised,
                limit,
                vms,
                host: host.memory_bytes,
                factor: overcommit.memory,
            });
        }
        if !asked.reserved {
            return Ok(());
        }
        let (promised, vms) = sum(true);
        if promised.saturating_add(asked.memory_bytes) > host.memory_bytes {
            return Err(Error::Reserved {
                asked: asked.memory_bytes,
                promised,
                vms,
                host: host.memory_bytes,
            });
        }
        // What is taken at once must be there: else the kernel kills somebody. That of a VM which has just been
        // admitted may still seem to be there; what it takes between these two looks counts twice, not never.
        let awaited = self.awaited_bytes();
        let available = (host.available_bytes)();
        match asked.memory_bytes > available.saturating_sub(awaited) {
            true => Err(Error::Unavailable {
                asked: asked.memory_bytes,
                available,
                awaited,
            }),
            false => Ok(()),
        }
    }

    /// What VMs were promised to have for themselves and have not taken yet, in bytes.
    fn awaited_bytes(&self) -> u64 {
        let reserved = self.live.iter().filter(|entry| entry.promise.reserved);
        let awaited = reserved.map(|entry| {
            let promised = entry.promise.memory_bytes;
            promised.saturating_sub(resident_bytes_with_children(entry.pid))
        });
        awaited.fold(0, u64::saturating_add)
    }
}

/// What one VM was promised, as long as this value lives, and the cgroup that holds the VM to it. Dropping it
/// kills whoever is in the cgroup, removes it, and gives the share back.
pub struct Share {
    claim: Claim<Entry>,
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
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.abandoned {
            return;
        }
        let removed = self.cgroup.as_mut().map_or(Ok(()), Cgroup::remove);
        match removed {
            Ok(()) => self.claim.release(),
            // The next command finds the claim and tries again.
            Err(error) => log::warn!("the share of a VM is left over: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
