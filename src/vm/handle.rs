//! A VM that runs: what can be done with it from outside.

use super::boot_trace::{BootTrace, Phase};
use super::error::Error;
use super::exit::ExitReason;
use super::kick;
use super::lifecycle::State;
use super::machine::Vm;
use super::stats::VmStats;
use super::vcpu::{Counters, Shared, VcpuStats};
use crate::devices::boot_timer::Ready;
use crate::devices::serial::SerialInput;
use crate::devices::virtio::block::BlockHandle;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use vmm_sys_util::eventfd::EventFd;

/// A running VM. Dropping it stops the VM and waits for its threads.
///
/// All methods take `&self`: a handle can be shared between threads.
pub struct VmHandle {
    shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    threads: Vec<JoinHandle<()>>,
    console: SerialInput,
    ready: Ready,
    disks: Vec<BlockHandle>,
    // Keeps the VM alive until the last vCPU is gone.
    _fd: Arc<VmFd>,
}

impl VmHandle {
    pub(super) fn start(vm: Vm) -> Result<Self, Error> {
        let host = |what| move |source| Error::Host { what, source };
        kick::install().map_err(host("a signal for vCPU threads"))?;
        let Vm {
            vcpus,
            fd,
            shared,
            console,
            ready,
            disks,
        } = vm;
        let shared = Arc::new(shared);
        let counters = vcpus.iter().map(|vcpu| vcpu.counters.clone()).collect();
        let mut handle = Self {
            shared,
            counters,
            threads: Vec::new(),
            console,
            ready,
            disks,
            _fd: fd,
        };
        for vcpu in vcpus {
            let shared = handle.shared.clone();
            // Should a thread be refused, dropping the handle stops those before it.
            let thread = Builder::new()
                .name(format!("vcpu{}", vcpu.number))
                .spawn(move || vcpu.run(&shared))
                .map_err(host("a thread for a vCPU"))?;
            handle.threads.push(thread);
        }
        Ok(handle)
    }

    /// Where the VM is in its life.
    pub fn state(&self) -> State {
        self.shared.lifecycle.state()
    }

    /// Running → Paused. When this returns, no vCPU executes guest code.
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM is not running.
    pub fn pause(&self) -> Result<(), Error> {
        self.shared
            .lifecycle
            .pause()
            .map_err(|from| Error::Transition {
                verb: "pause",
                from,
            })
    }

    /// Paused → Running.
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM is not paused.
    pub fn resume(&self) -> Result<(), Error> {
        self.shared
            .lifecycle
            .resume()
            .map_err(|from| Error::Transition {
                verb: "resume",
                from,
            })
    }

    /// Ends the VM as if its power were cut. When this returns, its vCPUs are gone; a VM that had already
    /// ended keeps its reason.
    pub fn stop(&self) {
        self.shared.lifecycle.end(Ok(ExitReason::Stopped));
        // How it ended does not matter here.
        let _ = self.shared.lifecycle.wait_for_end();
    }

    /// Blocks until the VM has ended, and tells why. Can be called again, and from several threads.
    ///
    /// # Errors
    /// [`Error::Failed`] when KVM could not go on, with the instruction and its place.
    pub fn wait(&self) -> Result<ExitReason, Error> {
        self.shared.lifecycle.wait_for_end().map_err(Error::Failed)
    }

    /// Becomes readable when the VM has ended, for those who poll.
    pub fn ended(&self) -> &EventFd {
        self.shared.lifecycle.ended()
    }

    /// The input side of the first serial port.
    pub fn console(&self) -> &SerialInput {
        &self.console
    }

    /// The disks, in the order of the configuration: statistics, limits, resizing.
    pub fn disks(&self) -> &[BlockHandle] {
        &self.disks
    }

    /// How often each vCPU has come back to user space, in the order of their numbers.
    pub fn vcpu_stats(&self) -> Vec<VcpuStats> {
        self.counters
            .iter()
            .map(|counters| counters.read())
            .collect()
    }

    /// Everything that is counted, as of now.
    pub fn stats(&self) -> VmStats {
        VmStats {
            vcpus: self.vcpu_stats(),
            disks: self.disks.iter().map(BlockHandle::stats).collect(),
        }
    }

    /// What the start has taken, phase by phase, as far as it has got.
    pub fn boot_trace(&self) -> &BootTrace {
        let trace = &self.shared.trace;
        if let Some(at) = self.ready.get() {
            trace.mark_at(Phase::GuestReady, *at);
        }
        trace
    }
}

impl Drop for VmHandle {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has reported itself as the VM's failure.
            let _ = thread.join();
        }
    }
}
