//! A VM that runs and its user, until it has ended.

use crate::Error;
use crate::console::{self, Console, End};
use crate::contact::Contact;
use crate::last_lines;
use crate::silence::Silence;
use crate::stopping::Stopping;
use kvmlet_spec::{Outcome, Reason};
use kvmlet_sys::standard_error;
use kvmlet_vmm::vm::{ExitReason, Phase, VmHandle};
use std::time::Instant;

/// A VM that runs, and its user.
pub(crate) struct Session<'a> {
    pub vm: &'a VmHandle,
    /// Nobody sees the console's output.
    pub is_null: bool,
    pub contact: &'a Contact,
}

impl Session<'_> {
    /// Connects them until the VM ends, and tells how it has.
    pub fn until_end(
        self,
        mut console: Console,
        stopping: Stopping,
        silence: Silence,
    ) -> Result<Outcome, Error> {
        let Self {
            vm,
            contact,
            is_null,
        } = self;
        contact.tell_ready();
        let end = console::attend(vm, &mut console, stopping, silence, contact);
        drop(console);
        contact.tell_stats(vm);
        report(vm, contact.started);
        Ok(match end {
            Ok(End::Guest(reason)) => {
                log::info!("{reason}");
                last_lines::tell(vm, Ok(reason), is_null);
                of_guest(reason)
            }
            Ok(End::Escape) => Outcome::new(Reason::Escape),
            Ok(End::Ordered) => Outcome::new(Reason::Stopped),
            Ok(End::Signal(signal)) => {
                log::info!("ended by signal {signal}");
                Outcome::new(Reason::Signal).signal(signal)
            }
            Err(error) => {
                last_lines::tell(vm, Err(&error), is_null);
                return Err(error);
            }
        })
    }
}

fn of_guest(reason: ExitReason) -> Outcome {
    match reason {
        ExitReason::Shutdown { code } => Outcome::new(Reason::Shutdown).code(code),
        ExitReason::Reset => Outcome::new(Reason::Reset),
        ExitReason::Panic => Outcome::new(Reason::Panic),
        ExitReason::TripleFault => Outcome::new(Reason::TripleFault),
        _ => Outcome::new(Reason::Stopped),
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
