//! Why a VM is not admitted, with all figures.

use crate::config::{Advice, CpuSet, Factor, Setting, advice, thousandths};
use crate::shares::cgroup;
use crate::state::claims;
use std::io;

/// Why a VM cannot have what it asks for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ledger's directory cannot be used.
    #[error(transparent)]
    Claims(#[from] claims::Error),
    /// The cgroups that hold the VM to its share cannot be made.
    #[error("cannot hold the VM to its share")]
    Cgroup(#[from] cgroup::Error),
    /// The kernel does not tell which CPUs there are.
    #[error("cannot find out which CPUs this process may use")]
    Cpus(#[source] io::Error),
    /// CPUs that the host does not have, or not for this process.
    #[error(
        "the CPU set {asked} cannot be used: this process may use {}, but not {lacking}", named(.host)
    )]
    NoSuchCpu {
        /// The set asked for.
        asked: CpuSet,
        /// What is wrong with it.
        lacking: CpuSet,
        /// The CPUs that can be used.
        host: CpuSet,
    },
    /// More CPU time than the host has left.
    #[error(
        "{} asked for, {} {} left: {}",
        cpus_were(*.asked), thousandths(.limit.saturating_sub(*.promised)),
        is_or_are(.limit.saturating_sub(*.promised)),
        others(*.vms, &thousandths(*.promised), &format!(
            "{} CPU{} of this host{}", .cpus.len(), if .cpus.len() == 1 { "" } else { "s" },
            overcommitted(*.factor, &thousandths(*.limit))
        ), is_or_are(*.promised), "promised to")
    )]
    Cpu {
        /// Asked for, in thousandths of a CPU.
        asked: u64,
        /// Promised to others, in thousandths.
        promised: u64,
        /// What may be promised in all, in thousandths.
        limit: u64,
        /// How many others there are with a quota.
        vms: usize,
        /// The CPUs of the host.
        cpus: CpuSet,
        /// How much of them may be promised.
        factor: Factor,
    },
    /// The sum fits, but not on the CPUs to which VMs are bound.
    #[error(
        "{} asked for, but then {} would be promised of {}, where {} may be{}",
        cpus_were(*.asked), thousandths(*.promised), named(.cpus), thousandths(*.limit),
        overcommitted(*.factor, &thousandths(*.limit))
    )]
    BoundCpus {
        /// Asked for, in thousandths of a CPU.
        asked: u64,
        /// What VMs that cannot go elsewhere would have, with this one, in thousandths.
        promised: u64,
        /// What may be promised of these CPUs, in thousandths.
        limit: u64,
        /// The CPUs that are too few.
        cpus: CpuSet,
        /// How much of them may be promised.
        factor: Factor,
    },
    /// More memory than the host has left.
    #[error(
        "{} of memory was asked for, {} is left: {}",
        mib(*.asked), mib(.limit.saturating_sub(*.promised)),
        others(*.vms, &mib(*.promised), &format!(
            "{} of this host{}", mib(*.host), overcommitted(*.factor, &mib(*.limit))
        ), "is", "promised to")
    )]
    Memory {
        /// Asked for, in bytes: guest RAM and what the VMM needs.
        asked: u64,
        /// Promised to others, in bytes.
        promised: u64,
        /// What may be promised in all, in bytes.
        limit: u64,
        /// How many others there are.
        vms: usize,
        /// All memory of the host, in bytes.
        host: u64,
        /// How much of it may be promised.
        factor: Factor,
    },
    /// More memory than can be reserved.
    #[error(
        "{} of reserved memory was asked for, {} is left: {}",
        mib(*.asked), mib(.host.saturating_sub(*.promised)),
        others(
            *.vms, &mib(*.promised), &format!("{} of this host", mib(*.host)), "is", "reserved for"
        )
    )]
    Reserved {
        /// Asked for, in bytes: guest RAM and what the VMM needs.
        asked: u64,
        /// Reserved for others, in bytes.
        promised: u64,
        /// How many others have reserved memory.
        vms: usize,
        /// All memory of the host, in bytes.
        host: u64,
    },
    /// More memory than can be taken now, whoever uses the rest.
    #[error(
        "{} of memory is taken before the guest starts, and {} is available on this host now{}",
        mib(*.asked), mib(.available.saturating_sub(*.awaited)), kept(*.awaited)
    )]
    Unavailable {
        /// Asked for, in bytes: guest RAM and what the VMM needs.
        asked: u64,
        /// What the kernel says is available, in bytes.
        available: u64,
        /// What VMs were promised to have for themselves and have not taken yet, in bytes.
        awaited: u64,
    },
}

impl Error {
    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<Advice> {
        // Rounded up, for the advice to be enough.
        let factor = |sum: u64, of: u64| thousandths((sum * 100).div_ceil(of.max(1)) * 10);
        Some(match self {
            Self::Claims(error) => return error.help().map(Into::into),
            Self::Cgroup(error) => return error.help(),
            Self::Cpus(_) => return None,
            Self::NoSuchCpu { host, .. } => format!("choose among {host}").into(),
            Self::Cpu {
                asked,
                promised,
                cpus,
                ..
            } => advice!(
                "ask for less with {}|end other VMs|let CPUs be promised more than once: {}",
                Setting::CpuQuota,
                (
                    Setting::OvercommitCpus,
                    factor(asked + promised, cpus.len() as u64 * 1000)
                )
            ),
            Self::BoundCpus { promised, cpus, .. } => advice!(
                "ask for less with {}|for other CPUs with {}|let CPUs be promised more than once: {}",
                Setting::CpuQuota,
                Setting::Cpuset,
                (
                    Setting::OvercommitCpus,
                    factor(*promised, cpus.len() as u64 * 1000)
                )
            ),
            Self::Memory {
                asked,
                promised,
                host,
                ..
            } => advice!(
                "ask for less with {}|end other VMs|let memory be promised more than once: {}",
                Setting::Memory,
                (
                    Setting::OvercommitMemory,
                    factor(asked.saturating_add(*promised), *host)
                )
            ),
            Self::Unavailable { .. } => advice!(
                "ask for less with {}|end other programs|do without {} and {}",
                Setting::Memory,
                (Setting::MemoryMode, "reserved"),
                Setting::Prefault
            ),
            Self::Reserved { .. } => advice!(
                "ask for less with {}|end other VMs|share with {}",
                Setting::Memory,
                (Setting::MemoryMode, "shared")
            ),
        })
    }
}

/// What others have of the whole.
fn others(vms: usize, part: &str, whole: &str, verb: &str, how: &str) -> String {
    match vms {
        0 => format!("nothing of the {whole} is {how} another VM"),
        1 => format!("{part} of the {whole} {verb} {how} 1 other VM"),
        _ => format!("{part} of the {whole} {verb} {how} {vms} other VMs"),
    }
}

/// This much CPU time, in thousandths of a CPU, with its noun and verb.
fn cpus_were(milli: u64) -> String {
    match milli {
        1000 => "1 CPU was".into(),
        _ => format!("{} CPUs were", thousandths(milli)),
    }
}

/// The verb for this many thousandths of a CPU.
fn is_or_are(milli: u64) -> &'static str {
    match milli <= 1000 {
        true => "is",
        false => "are",
    }
}

/// "CPU 0", "CPUs 0-3".
fn named(cpus: &CpuSet) -> String {
    match cpus.len() {
        1 => format!("CPU {cpus}"),
        _ => format!("CPUs {cpus}"),
    }
}

/// How much of what is available is not, because others are about to take it.
fn kept(awaited: u64) -> String {
    match awaited {
        0 => String::new(),
        _ => format!(
            ", where other VMs are still taking {} of theirs",
            mib(awaited)
        ),
    }
}

/// What a factor makes of what the host has; nothing if that is the same.
fn overcommitted(factor: Factor, limit: &str) -> String {
    if factor == Factor::default() {
        return String::new();
    }
    format!(" (overcommit {factor}: {limit})")
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
