//! What a start takes of a virtual machine monitor: exits to it, and its CPU time beside the guest's.
//!
//! Unlike the time of a Linux guest's start, both mean the same on a host that interprets guest kernel code: the
//! guest does there what it does elsewhere, so it needs the VMM as often.

use super::contestant::{Contestant, Service};
use super::error::Halt;
use super::memory::{self, GUEST_BYTES, Memory};
use super::running::Running;
use super::sample::ms;
use super::workshop::{TRACEFS, Workshop};
use crate::trace::{KvmUse, KvmWatch};
use kvmlet_sys::clock::monotonic_ns;
use kvmlet_sys::signals::Signals;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// From the spawn to the line `ready`; medians of starts apart from all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Effort {
    /// It was measured.
    Measured {
        /// Number of starts.
        n: usize,
        /// Times that KVM_RUN returned to the VMM.
        exits: f64,
        /// Milliseconds of CPU time in KVM_RUN: the guest's and KVM's.
        guest_cpu_ms: f64,
        /// Milliseconds of CPU time elsewhere, of all threads: the VMM's, with its `exec` and the system calls that
        /// it makes.
        vmm_cpu_ms: f64,
        /// Pages of guest RAM (4 KiB) that are mapped then: those that the guest has touched, and what the kernel has
        /// mapped beside them.
        guest_pages: f64,
        /// Of these, those that are in no file: what a guest has written that goes on from a snapshot.
        guest_own_pages: f64,
    },
    /// It could not be.
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Most starts, and the time after which there are no more than the fewest: one alone may be disturbed.
const STARTS: usize = 10;
const LEAST_STARTS: usize = 2;
const BUDGET: Duration = Duration::from_secs(1);

impl Effort {
    /// Watches a few starts. An error is an interruption.
    pub(super) fn measure(
        contestant: &dyn Contestant,
        deadline: Duration,
        workshop: &Workshop,
        signals: &Signals,
    ) -> Result<Self, Halt> {
        let begun = Instant::now();
        let mut uses = Vec::new();
        while uses.len() < LEAST_STARTS || uses.len() < STARTS && begun.elapsed() < BUDGET {
            match once(contestant, deadline, workshop, signals) {
                Ok(seen) => uses.push(seen),
                Err(Halt::Interrupted) => return Err(Halt::Interrupted),
                Err(Halt::Failed(reason)) => return Ok(Effort::Unavailable { reason }),
            }
        }
        // Of two the smaller: what disturbs a start makes it more.
        let median = |value: &dyn Fn(&Seen) -> f64| {
            let mut values: Vec<f64> = uses.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[(values.len() - 1) / 2]
        };
        Ok(Effort::Measured {
            n: uses.len(),
            exits: median(&|seen| seen.used.exits as f64),
            guest_cpu_ms: median(&|seen| ms(seen.used.inside)),
            vmm_cpu_ms: median(&|seen| ms(seen.used.outside)),
            guest_pages: median(&|seen| pages(seen.memory.guest_ram)),
            guest_own_pages: median(&|seen| pages(seen.memory.guest_own)),
        })
    }
}

/// What a start came to.
struct Seen {
    used: KvmUse,
    memory: Memory,
}

/// Pages of that much guest RAM, in MiB.
fn pages(mib: f64) -> f64 {
    (mib * 256.0).round()
}

fn once(
    contestant: &dyn Contestant,
    deadline: Duration,
    workshop: &Workshop,
    signals: &Signals,
) -> Result<Seen, Halt> {
    let failed = |what: &str, error: std::io::Error| Halt::Failed(format!("{what}: {error}"));
    // It stays: what a guest does after the line is none of this, however late the line is read.
    let launch = contestant.launch(0, Service::Stays).map_err(Halt::Failed)?;
    let watch = KvmWatch::begin(Path::new(TRACEFS))
        .map_err(|error| failed("tracepoints cannot be used", error))?;
    let mut running = Running::start(&launch.argv, &workshop.path().join("stderr"), deadline)?;
    let ready = running.wait_ready(signals);
    let until = ready.map(|ready| monotonic_ns(running.started() + ready));
    let memory = memory::of(&memory::processes(&memory::tag()), GUEST_BYTES);
    drop(running);
    launch.clean_up();
    let used = watch.end(until?);
    let used = used.map_err(|error| failed("tracepoints", error))?;
    Ok(Seen { used, memory })
}
