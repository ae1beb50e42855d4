//! A VM that runs: what can be done with it from outside.

use super::boot_trace::{BootTrace, Phase};
use super::built::Built;
use super::devices::Handles;
use super::error::Error;
use super::exit::ExitReason;
use super::kick;
use super::lifecycle::State;
use super::since::Since;
use super::vcpu::{Counters, Shared, Vcpu};
use super::workers::Workers;
use crate::config::{MemoryStats, VcpuStats, VmStats};
use crate::devices::pci::ConfigPorts;
use crate::devices::serial::SerialInput;
use crate::devices::virtio::balloon::BalloonHandle;
use crate::devices::virtio::block::BlockHandle;
use crate::devices::virtio::net::NetHandle;
use crate::devices::virtio::rng::RngHandle;
use crate::devices::virtio::vsock::VsockHandle;
use crate::devices::virtio::{PATIENCE, Patience};
use crate::snapshot::MachineState;
use crate::thread::{self, Beginning, OnStart, ThreadKind};
use kvm_ioctls::VmFd;
use kvmlet_sys::thread::lock;
use kvmlet_sys::written::Written;
use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long a pause waits for the threads of devices. Only on a busy host does one wait that long for its turn; what one asks of
/// the host is waited for as at an end.
const TURN: Duration = Duration::from_millis(500);

/// A running VM. Dropping it stops the VM and waits for its threads.
///
/// All methods take `&self`: a handle can be shared between threads.
pub struct VmHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Vec<Arc<Counters>>,
    threads: Vec<JoinHandle<()>>,
    pub(super) devices: Handles,
    pub(super) workers: Workers,
    /// One move of the lifecycle at a time, and none but an end while it is being saved.
    pub(super) moves: Mutex<bool>,
    pub(super) machine: MachineState,
    pub(super) pci: Option<Arc<Mutex<ConfigPorts>>>,
    /// What is written to of its memory, if it can be told while it runs.
    pub(super) written: Option<Written>,
    pub(super) since: Mutex<Since>,
    // Given back when the VM is gone.
    _kept: Vec<Box<dyn Any + Send + Sync>>,
    // Keeps the VM alive until the last vCPU is gone.
    pub(super) fd: Arc<VmFd>,
}

impl VmHandle {
    pub(super) fn start(vm: Built) -> Result<Self, Error> {
        let resumes = vm.resumes;
        let (mut handle, vcpus) = Self::of(vm)?;
        if resumes {
            handle.shared.lifecycle.begin_paused();
        }
        for vcpu in vcpus {
            let shared = handle.shared.clone();
            // Should a thread be refused, dropping the handle stops those before it.
            let thread = Builder::new()
                .name(vcpu_thread(&vcpu))
                .spawn(move || vcpu.run(&shared))
                .map_err(no_thread(VCPU))?;
            handle.threads.push(thread);
        }
        if resumes {
            handle.resume()?;
        }
        Ok(handle)
    }

    /// Takes a VM apart: what stays with the handle, and what goes to threads.
    fn of(vm: Built) -> Result<(Self, Vec<Vcpu>), Error> {
        kick::install().map_err(|source| Error::Host {
            what: "a real-time signal that calls vCPU threads back",
            source,
        })?;
        let Built {
            vcpus,
            fd,
            shared,
            handles,
            transports,
            machine,
            pci,
            written,
            since,
            resumes: _,
            kept,
        } = vm;
        let handle = Self {
            shared: Arc::new(shared),
            counters: vcpus.iter().map(|vcpu| vcpu.counters.clone()).collect(),
            threads: Vec::new(),
            devices: handles,
            workers: Workers::new(transports),
            moves: Mutex::new(false),
            _kept: kept,
            machine,
            pci,
            written,
            since: Mutex::new(since),
            fd,
        };
        Ok((handle, vcpus))
    }

    /// Where the VM is in its life.
    pub fn state(&self) -> State {
        self.shared.lifecycle.state()
    }

    /// Tells the guest that its process was stopped for a while (SIGSTOP) and goes on, so that its watchdogs do not take
    /// that for a lockup. Who runs a VM in a process of its own calls this on SIGCONT. After
    /// [`resume`](Self::resume) there is no need to.
    #[doc(hidden)] // of `kvmlet-run`
    pub fn tell_of_stop(&self) {
        self.shared.lifecycle.call_back();
    }

    /// Running → Paused. When this returns, no vCPU executes guest code, and nothing changes guest memory until
    /// [`resume`](Self::resume). What devices have asked of the host is waited for as far as its answer goes to guest
    /// memory, a tenth of a second at the most, and threads that the host gives no turn half a second.
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM is not running; [`Error::Unsettled`] when a disk does not answer in time. The
    /// VM runs on then.
    pub fn pause(&self) -> Result<(), Error> {
        let moves = lock(&self.moves);
        if *moves {
            return Err(Error::BeingSaved);
        }
        let patience = Patience {
            until: Instant::now() + TURN,
            host: PATIENCE,
        };
        let verb = "pause";
        let wrong = |from| Error::Transition { verb, from };
        self.shared.lifecycle.pause().map_err(wrong)?;
        self.workers.sleep(patience).map_err(|device| {
            // Unless it has ended meanwhile.
            let _ = self.shared.lifecycle.resume();
            Error::Unsettled { device }
        })
    }

    /// Paused → Running.
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM is not paused.
    pub fn resume(&self) -> Result<(), Error> {
        let moves = lock(&self.moves);
        if *moves {
            return Err(Error::BeingSaved);
        }
        let verb = "resume";
        let wrong = |from| Error::Transition { verb, from };
        self.shared.lifecycle.resume().map_err(wrong)?;
        self.workers.wake();
        Ok(())
    }

    /// Presses the machine's power button, which asks the guest to end its service and to power off. Returns whether a
    /// driver of the guest hears it. The VM runs on until the guest has done so, if it ever does: whoever asks gives it
    /// a time, after which [`stop`](Self::stop) ends it.
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM is not running.
    pub fn request_stop(&self) -> Result<bool, Error> {
        match self.state() {
            State::Running => Ok(self.shared.power_button.press()),
            from => Err(Error::Transition {
                verb: "ask for the end of",
                from,
            }),
        }
    }

    /// Ends the VM as if its power were cut. When this returns, its vCPUs are gone, and its devices do nothing more;
    /// what the host's kernel has not ended by then, as a read of a disk that hangs, is not waited for. A VM that had
    /// already ended keeps its reason.
    pub fn stop(&self) {
        self.shared.lifecycle.end(Ok(ExitReason::Stopped));
        // How it ended does not matter here.
        let _ = self.shared.lifecycle.wait_for_end();
        lock(&self.shared.serial).give_up();
        let _in_turn = lock(&self.moves);
        self.workers.end();
    }

    /// Blocks until the VM has ended, and tells why. Can be called again, and from several threads.
    ///
    /// # Errors
    /// [`Error::Failed`] when KVM could not go on, with the instruction and its place.
    pub fn wait(&self) -> Result<ExitReason, Error> {
        self.shared.lifecycle.wait_for_end().map_err(Error::Failed)
    }

    /// Becomes readable when the VM has ended, for those who poll.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.shared.lifecycle.ended().as_fd()
    }

    /// The input side of the first serial port.
    pub fn console(&self) -> &SerialInput {
        &self.devices.console
    }

    /// The last lines that the guest has written to its first serial port, ten at the most and 4 KiB in all, wherever
    /// its output goes: what it has to say of a panic, say. A guest may have written anything, so what is not to be
    /// printed, control characters among it, is escaped (`\u{1b}`).
    pub fn last_lines(&self) -> Vec<String> {
        self.devices.console.last_lines()
    }

    /// Blocks until the VM has ended, and tells whether some of that output was lost, because its writer failed or stood
    /// still.
    pub fn lost_output(&self) -> bool {
        // How it ended does not matter here.
        let _ = self.shared.lifecycle.wait_for_end();
        lock(&self.shared.serial).has_lost()
    }

    /// The disks, in the order of the configuration: statistics, limits, resizing.
    pub fn disks(&self) -> &[BlockHandle] {
        &self.devices.disks
    }

    /// The network interfaces, in the order of the configuration: statistics and limits.
    pub fn interfaces(&self) -> impl Iterator<Item = &NetHandle> {
        self.devices.interfaces.iter()
    }

    /// Sockets between guest and host, if there can be some.
    pub fn vsock(&self) -> Option<&VsockHandle> {
        self.devices.vsock.as_ref()
    }

    /// The memory balloon, if the VM has one: its size, and what the guest tells of its memory.
    pub fn balloon(&self) -> Option<&BalloonHandle> {
        self.devices.balloon.as_ref()
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
        let mut stats = VmStats::default();
        stats.vcpus = self.vcpu_stats();
        stats.entropy = self.devices.entropy.as_ref().map(RngHandle::stats);
        stats.disks = self.devices.disks.iter().map(BlockHandle::stats).collect();
        stats.interfaces = self.interfaces().map(NetHandle::stats).collect();
        stats.memory = self.memory_stats();
        stats.balloon = self.balloon().map(BalloonHandle::stats);
        stats.vsock = self.vsock().map(VsockHandle::stats);
        stats
    }

    fn memory_stats(&self) -> MemoryStats {
        let ram = &self.shared.ram;
        let resident_bytes = ram.resident_bytes();
        if let Err(error) = &resident_bytes {
            log::debug!("how much guest memory is resident is not known: {error}");
        }
        let mut stats = MemoryStats::default();
        stats.bytes = ram.bytes();
        stats.resident_bytes = resident_bytes.ok();
        stats
    }

    /// What the start has taken, phase by phase, as far as it has got.
    pub fn boot_trace(&self) -> &BootTrace {
        let trace = &self.shared.trace;
        if let Some(at) = self.devices.ready.get() {
            trace.mark_at(Phase::GuestReady, *at);
        }
        trace
    }
}

/// What threads are for.
const VCPU: &str = "a vCPU";
const DEVICE: &str = "a device";

/// A VM whose threads have been started, and may not all have begun. Dropping it stops the VM.
#[must_use = "its threads may have failed to begin"]
pub struct Starting {
    handle: VmHandle,
    /// With what each is for.
    threads: Vec<(Beginning, &'static str)>,
}

impl Starting {
    /// Starts all threads at the same time.
    pub(super) fn begin(vm: Built, on_start: Arc<OnStart>) -> Result<Self, Error> {
        let (mut handle, vcpus) = VmHandle::of(vm)?;
        handle.shared.lifecycle.begin_paused();
        let mut threads = Vec::new();
        for vcpu in vcpus {
            let shared = handle.shared.clone();
            let name = vcpu_thread(&vcpu);
            let body = move || vcpu.run(&shared);
            // Its number, which it needs, may be a call too many later.
            let prepare = || _ = kick::Thread::this();
            let thread = thread::spawn(&name, ThreadKind::Vcpu, &on_start, prepare, body);
            let (thread, begun) = thread.map_err(no_thread(VCPU))?;
            handle.threads.push(thread);
            threads.push((begun, VCPU));
        }
        for transport in handle.workers.transports() {
            let begun = lock(transport).session().start_workers(&on_start);
            let begun = begun.map_err(no_thread(DEVICE))?.into_iter();
            threads.extend(begun.map(|begun| (begun, DEVICE)));
        }
        Ok(Self { handle, threads })
    }

    /// Waits until all threads have done what they were to do first. The VM is paused then.
    ///
    /// # Errors
    /// What `on_start` said to one of them.
    pub fn wait(self) -> Result<VmHandle, Error> {
        for (begun, of) in self.threads {
            begun.wait().map_err(no_thread(of))?;
        }
        Ok(self.handle)
    }
}

fn vcpu_thread(vcpu: &Vcpu) -> String {
    format!("vcpu{}", vcpu.number)
}

fn no_thread(of: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Thread { of, source }
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
