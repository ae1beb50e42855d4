//! Is there room for one more VM? Told with all figures if not, for which each of the others is looked at.

use super::placement::{Tight, place};
use super::{Entry, Error, Host, Promise};
use crate::config::{CpuSet, Overcommit};
use kvmlet_sys::process::resident_bytes_with_children;

/// Has the host the CPUs that are asked for?
pub(super) fn check_set(asked: &Promise, host: &Host) -> Result<(), Error> {
    let lacking = |cpus: &CpuSet| Some((cpus.clone(), cpus.beyond(&host.cpus)?));
    match asked.cpus.as_ref().and_then(lacking) {
        None => Ok(()),
        Some((asked, lacking)) => Err(Error::NoSuchCpu {
            asked,
            lacking,
            host: host.cpus.clone(),
        }),
    }
}

/// All VMs but the one that asks.
pub(super) struct Others<'a>(pub &'a [Entry]);

impl Others<'_> {
    fn promises(&self) -> impl ExactSizeIterator<Item = &Promise> + Clone {
        self.0.iter().map(|entry| &entry.promise)
    }

    pub fn check_cpu(
        &self,
        asked: &Promise,
        overcommit: Overcommit,
        host: &Host,
    ) -> Result<(), Error> {
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

    pub fn check_memory(
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
        let reserved = self.0.iter().filter(|entry| entry.promise.reserved);
        let awaited = reserved.map(|entry| {
            let promised = entry.promise.memory_bytes;
            promised.saturating_sub(resident_bytes_with_children(entry.pid))
        });
        awaited.fold(0, u64::saturating_add)
    }
}
