//! A VM that runs and its user, until it has ended.

use crate::console::{Console, End};
use crate::last_lines;
use crate::reports::StatsSink;
use crate::silence::Silence;
use crate::stopping::Stopping;
use crate::{Error, Tell};
use kvmlet_sys::standard_error;
use kvmlet_vmm::vm::{Phase, VmHandle};
use std::time::{Duration, Instant};

/// How long the guest has to tell how much memory it uses, before statistics are written without.
const PATIENCE: Duration = Duration::from_millis(500);

/// Statistics on request have the guest's own in them, as it is now, if it answers.
fn ask_guest(vm: &VmHandle) {
    let answer = vm.balloon().map(|balloon| balloon.ask_guest(PATIENCE));
    if let Some(Err(error)) = answer {
        log::info!("{error}");
    }
}

/// A VM that runs, and its user.
pub(crate) struct Session<'a> {
    pub vm: &'a VmHandle,
    /// Nobody sees the console's output.
    pub is_null: bool,
    pub stats: &'a StatsSink,
    /// When the process was.
    pub started: Instant,
    pub tell: Tell,
}

impl Session<'_> {
    /// Connects them until the VM ends, and tells how it has. Beside that, whether its last statistics were written.
    pub fn until_end(
        self,
        mut console: Console,
        stopping: Stopping,
        silence: Silence,
    ) -> Result<(End, Result<(), Error>), Error> {
        let Self {
            vm,
            stats,
            started,
            tell,
            ..
        } = self;
        let end = console.attend(vm, stopping, silence, || {
            if !matches!(stats, StatsSink::Nowhere) {
                ask_guest(vm);
            }
            // No reason to end a VM that runs.
            if let Err(error) = stats.put(vm, started) {
                tell(error);
            }
        });
        drop(console);
        let written = stats.put(vm, started);
        report(vm, started);
        match &end {
            Ok(End::Guest(reason)) => {
                log::info!("{reason}");
                last_lines::tell(vm, Ok(*reason), self.is_null);
            }
            Ok(End::Escape) => {}
            Ok(End::Signal(signal)) => log::info!("ended by signal {signal}"),
            Err(error) => last_lines::tell(vm, Err(error), self.is_null),
        }
        end.map(|end| (end, written))
    }
}

/// Times since the process started, as far as the guest has told them.
fn report(vm: &VmHandle, started: Instant) {
    let trace = vm.boot_trace();
    for (phase, time) in trace.phases() {
        log::debug!("{:<14} {:>8.3} ms", phase.name(), time.as_secs_f64() * 1e3);
    }
    let since = |at: Instant| at.saturating_duration_since(started).as_secs_f64() * 1e3;
    if let Some(at) = trace.done_at(Phase::FirstEntry) {
        log::info!(
            "the guest was entered {:.3} ms after the process started",
            since(at)
        );
    }
    if let Some(at) = trace.done_at(Phase::GuestReady) {
        standard_error::say(format_args!(
            "kvmlet: the guest was ready {:.3} ms after the process started",
            since(at)
        ));
    }
    for (number, stats) in vm.vcpu_stats().into_iter().enumerate() {
        log::debug!("vCPU {number}: {stats:?}");
    }
}
