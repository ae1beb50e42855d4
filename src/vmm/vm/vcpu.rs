//! One vCPU: its thread, and the loop that is one match on why the guest came back.

use super::boot_trace::BootTrace;
use super::error::Error;
use super::exit::ExitReason;
use super::failure::{Cause, Failure};
use super::fpu_ports::FpuPorts;
use super::kick;
use super::lifecycle::{Lifecycle, Outcome};
use super::power_button::PowerButton;
use super::vcpu_state::{self, Means};
use crate::config::VcpuStats;
use crate::devices::generation::Generation;
use crate::devices::power::Power;
use crate::devices::serial::Serial;
use crate::devices::{Action, Bus};
use crate::memory::GuestRam;
use crate::snapshot::VcpuState;
use kvm_bindings::{
    KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use kvmlet_sys::thread::lock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What a vCPU tells of itself.
pub(super) type Told = Result<VcpuState, Error>;

/// What all vCPUs of a VM share.
pub(super) struct Shared {
    pub ports: Bus,
    pub mmio: Bus,
    /// How its kernel saves registers, where it cannot itself.
    pub fpu: Option<FpuPorts>,
    pub power_button: PowerButton,
    pub power: Arc<Mutex<Power>>,
    pub generation: Arc<Mutex<Generation>>,
    pub serial: Arc<Mutex<Serial>>,
    pub lifecycle: Lifecycle<Told>,
    pub trace: BootTrace,
    // Last: what is on the buses holds the VM, which must not outlive its memory.
    pub ram: GuestRam,
}

/// Exits to user space of one vCPU, by kind.
#[derive(Debug, Default)]
pub(super) struct Counters {
    port_reads: AtomicU64,
    port_writes: AtomicU64,
    mmio_reads: AtomicU64,
    mmio_writes: AtomicU64,
    kicks: AtomicU64,
}

impl Counters {
    pub fn read(&self) -> VcpuStats {
        let mut stats = VcpuStats::default();
        stats.port_reads = self.port_reads.load(Relaxed);
        stats.port_writes = self.port_writes.load(Relaxed);
        stats.mmio_reads = self.mmio_reads.load(Relaxed);
        stats.mmio_writes = self.mmio_writes.load(Relaxed);
        stats.kicks = self.kicks.load(Relaxed);
        stats
    }
}

/// Only the vCPU's own thread counts, so a load and a store do what a locked addition would.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// A vCPU that is ready to run.
pub(super) struct Vcpu {
    pub number: u8,
    /// It has not been in the guest, and nor has another: the others wait until the guest starts them.
    pub is_first: bool,
    /// It goes on with what a guest has done elsewhere.
    pub resumes: bool,
    /// How it can tell of itself.
    pub means: Arc<Means>,
    pub fd: VcpuFd,
    pub counters: Arc<Counters>,
}

impl Vcpu {
    /// Runs until the VM ends; the body of the vCPU's thread.
    pub fn run(mut self, shared: &Shared) {
        let run: *mut kvm_run = self.fd.get_kvm_run();
        // SAFETY: `run` is mapped as long as `self.fd` lives, which is longer than `attention`.
        let attention = unsafe { kick::attend(&raw mut (*run).immediate_exit) };
        shared.lifecycle.enter();
        let guard = Leave {
            lifecycle: &shared.lifecycle,
            vcpu: self.number,
        };
        if let Some(outcome) = self.run_until_end(run, shared) {
            shared.lifecycle.end(outcome);
        }
        drop(guard);
        drop(attention);
    }

    /// `None` when the VM was ended by someone else.
    fn run_until_end(&mut self, run: *const kvm_run, shared: &Shared) -> Option<Outcome> {
        if !self.may_run(shared) {
            return None;
        }
        if self.resumes {
            self.tell_of_pause();
        }
        let mut next = Next::Enter;
        loop {
            next = match next {
                Next::Enter => self.enter(run, shared),
                Next::Ask => {
                    // Cleared before asking: a kick that comes between the two is seen by the next KVM_RUN.
                    self.fd.set_kvm_immediate_exit(0);
                    if !self.may_run(shared) {
                        return None;
                    }
                    self.tell_of_pause();
                    lock(&shared.serial).drain();
                    Next::Enter
                }
                Next::End(reason) => return Some(Ok(reason)),
                Next::Fail(cause) => {
                    let failure = Failure::examine(self.number, cause, &mut self.fd, &shared.ram);
                    return Some(Err(failure));
                }
            };
        }
    }

    fn may_run(&self, shared: &Shared) -> bool {
        let tell = || vcpu_state::read(&self.fd, self.number, &self.means);
        shared.lifecycle.may_run(tell)
    }

    /// The guest's watchdogs should not take the time that it stood still for a lockup (api.rst, KVM_KVMCLOCK_CTRL):
    /// while it was paused, or while its process was stopped or frozen, which KVM_RUN comes back from, too. A vCPU that
    /// was not in it then is [called back](Lifecycle::call_back).
    fn tell_of_pause(&self) {
        // Refused where the guest does not use KVM's clock, and has nobody to be told.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Into the guest and back once.
    fn enter(&mut self, run: *const kvm_run, shared: &Shared) -> Next {
        let (counters, fd) = (&self.counters, &mut self.fd);
        let is_first = std::mem::take(&mut self.is_first);
        match shared.trace.around_entry(is_first, move || fd.run()) {
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&counters.port_writes);
                if let Some(ports) = &shared.fpu
                    && let Some(order) = ports.order(port, data)
                {
                    ports.carry_out(order, &self.fd, &shared.ram);
                    return Next::Enter;
                }
                each_access(run, data.len())
                    .find_map(|part| act(shared.ports.write(port.into(), &data[part])))
                    .unwrap_or(Next::Enter)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                count(&counters.port_reads);
                if let Some(ports) = &shared.fpu
                    && ports.read(port, data)
                {
                    return Next::Enter;
                }
                for part in each_access(run, data.len()) {
                    shared.ports.read(port.into(), &mut data[part]);
                }
                Next::Enter
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&counters.mmio_writes);
                act(shared.mmio.write(address, data)).unwrap_or(Next::Enter)
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&counters.mmio_reads);
                shared.mmio.read(address, data);
                Next::Enter
            }
            Ok(VcpuExit::Intr) => Next::Ask,
            Ok(VcpuExit::Shutdown) => Next::End(ExitReason::TripleFault),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
                Next::End(ExitReason::Shutdown { code: 0 })
            }
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => Next::End(ExitReason::Reset),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _)) => Next::End(ExitReason::Panic),
            Ok(VcpuExit::FailEntry(reason, _)) => Next::Fail(Cause::Entry(reason)),
            Ok(VcpuExit::InternalError) => Next::Fail(Failure::internal_error(&mut self.fd)),
            Ok(other) => Next::Fail(Cause::Unexpected(format!("{other:?}"))),
            Err(error) if error.errno() == libc::EINTR => {
                count(&counters.kicks);
                Next::Ask
            }
            // One that waits to be started was woken. The first one never waits for that: there KVM had no room for
            // a thread that it starts in this process (`kvm_mmu_post_init_vm` in Linux's arch/x86/kvm/mmu/mmu.c).
            Err(error) if error.errno() == libc::EAGAIN && self.number > 0 => Next::Ask,
            Err(error) => Next::Fail(Cause::Run(error.errno())),
        }
    }
}

/// What to do after an exit.
enum Next {
    Enter,
    /// Ask the lifecycle first.
    Ask,
    End(ExitReason),
    Fail(Cause),
}

fn act(action: Action) -> Option<Next> {
    Some(Next::End(match action {
        Action::None => return None,
        Action::Reset => ExitReason::Reset,
        Action::ShutDown { code } => ExitReason::Shutdown { code },
        Action::Panic => ExitReason::Panic,
    }))
}

/// A string instruction (`rep outsb`) comes as one exit with many accesses of `io.size` bytes each.
fn each_access(run: *const kvm_run, bytes: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    // SAFETY: `run` is this vCPU's mapped kvm_run, and the exit just seen is KVM_EXIT_IO, for which `io` is
    // the union's member. The data that the exit refers to lies on another page of the mapping.
    let size = unsafe { usize::from((*run).__bindgen_anon_1.io.size) }.max(1);
    (0..bytes)
        .step_by(size)
        .map(move |start| start..(start + size).min(bytes))
}

/// Leaves the lifecycle on every way out, a panic included, which then ends the VM.
struct Leave<'a> {
    lifecycle: &'a Lifecycle<Told>,
    vcpu: u8,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = Cause::Unexpected("a bug: the vCPU thread panicked".into());
            let instruction = Vec::new();
            self.lifecycle.end(Err(Failure {
                vcpu: self.vcpu,
                cause,
                rip: None,
                privilege: None,
                instruction,
            }));
        }
        self.lifecycle.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::outlet::Recall;
    use kvmlet_sys::event::Event;

    #[test]
    fn a_thread_that_panics_ends_the_vm_and_names_its_vcpu() {
        let lifecycle = Lifecycle::new(Event::new().unwrap(), Recall::default());
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                lifecycle.enter();
                let _leave = Leave {
                    lifecycle: &lifecycle,
                    vcpu: 3,
                };
                panic!("as it is to");
            });
            assert!(thread.join().is_err());
        });
        let failure = lifecycle.wait_for_end().unwrap_err().to_string();
        assert!(failure.starts_with("vCPU 3: "), "{failure}");
    }
}
