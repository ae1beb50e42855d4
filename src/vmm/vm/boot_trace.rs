//! When each phase of a start was done.

use crate::config::{PhaseRecord, StartRecord};
use kvmlet_sys::clock;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The phases of a start, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// `/dev/kvm` is open and the VM exists.
    VmCreated,
    /// Guest RAM is mapped and registered.
    MemoryReady,
    /// Interrupt controllers and devices are there.
    DevicesReady,
    /// Kernel, initrd, command line and tables are in guest RAM.
    KernelLoaded,
    /// KVM has said which CPU features it supports.
    CpuidRead,
    /// vCPUs are created and have their registers.
    VcpusReady,
    /// The first vCPU is about to enter the guest.
    FirstEntry,
    /// The guest came back for the first time: it has run.
    FirstExit,
    /// The guest said that it was up (boot timer).
    GuestReady,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: &[Phase] = &[
        Phase::VmCreated,
        Phase::MemoryReady,
        Phase::DevicesReady,
        Phase::KernelLoaded,
        Phase::CpuidRead,
        Phase::VcpusReady,
        Phase::FirstEntry,
        Phase::FirstExit,
        Phase::GuestReady,
    ];

    /// A short name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Phase::VmCreated => "create VM",
            Phase::MemoryReady => "map memory",
            Phase::KernelLoaded => "load kernel",
            Phase::DevicesReady => "devices",
            Phase::CpuidRead => "ask for CPUID",
            Phase::VcpusReady => "vCPUs",
            Phase::FirstEntry => "start threads",
            Phase::FirstExit => "first exit",
            Phase::GuestReady => "guest ready",
        }
    }
}

/// The instants at which the phases of one start ended.
#[derive(Clone, Debug)]
pub struct BootTrace {
    begun: Instant,
    done: [OnceLock<Instant>; Phase::ALL.len()],
}

impl BootTrace {
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            done: Default::default(),
        }
    }

    /// A phase is done now; only the first time counts.
    pub(super) fn mark(&self, phase: Phase) {
        self.done[phase as usize].get_or_init(Instant::now);
    }

    /// A phase was done at a given instant.
    pub(super) fn mark_at(&self, phase: Phase, at: Instant) {
        self.done[phase as usize].get_or_init(|| at);
    }

    /// Goes into the guest and back, which is noted if it `is_first`.
    pub(super) fn around_entry<T>(&self, is_first: bool, enter: impl FnOnce() -> T) -> T {
        if !is_first {
            return enter();
        }
        self.mark(Phase::FirstEntry);
        let exit = enter();
        self.mark(Phase::FirstExit);
        exit
    }

    /// When the VM began to be built.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// When a phase was done, if it is.
    pub fn done_at(&self, phase: Phase) -> Option<Instant> {
        self.done[phase as usize].get().copied()
    }

    /// The phases that are done, with the time that each took.
    pub fn phases(&self) -> Vec<(Phase, Duration)> {
        let mut last = self.begun;
        let mut phases = Vec::new();
        for &phase in Phase::ALL {
            if let Some(at) = self.done_at(phase) {
                phases.push((phase, at.saturating_duration_since(last)));
                last = at;
            }
        }
        phases
    }
}

impl BootTrace {
    /// The start of a process that began to run at `process`.
    pub fn record(&self, process: Instant) -> StartRecord {
        let done = |phase: Phase| {
            Some(PhaseRecord {
                name: phase.name().into(),
                done_ns: clock::monotonic_ns(self.done_at(phase)?),
            })
        };
        StartRecord {
            process_ns: clock::monotonic_ns(process),
            begun_ns: clock::monotonic_ns(self.begun),
            phases: Phase::ALL.iter().copied().filter_map(done).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_phases_that_are_done_in_order() {
        let before = Instant::now();
        let trace = BootTrace::begin();
        trace.mark(Phase::VmCreated);
        trace.mark(Phase::FirstExit);
        let record = trace.record(before);
        let names: Vec<_> = record
            .phases
            .iter()
            .map(|phase| phase.name.as_str())
            .collect();
        assert_eq!(names, ["create VM", "first exit"]);
        assert!(record.process_ns <= record.begun_ns);
        assert!(record.begun_ns <= record.phases[0].done_ns);
        assert!(record.phases[0].done_ns <= record.phases[1].done_ns);
    }

    #[test]
    fn phases_add_up() {
        let trace = BootTrace::begin();
        trace.mark(Phase::VmCreated);
        trace.mark(Phase::FirstExit);
        let total: Duration = trace.phases().iter().map(|(_, time)| *time).sum();
        assert_eq!(trace.phases().len(), 2);
        assert_eq!(
            trace.begun() + total,
            trace.done_at(Phase::FirstExit).unwrap()
        );
    }

    #[test]
    fn phases_are_indexed_by_their_order() {
        assert!(
            Phase::ALL
                .iter()
                .enumerate()
                .all(|(index, phase)| *phase as usize == index)
        );
    }
}
