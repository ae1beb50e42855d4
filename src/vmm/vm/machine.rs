//! Putting a machine together, in the order that KVM likes best.
//!
//! 1. Create the VM.
//! 2. Register memory: after an interrupt controller or vCPUs exist this waits for an SRCU grace period, 6 to
//!    8 ms.
//! 3. Split the interrupt controller: a full one in the kernel costs 14 ms when the VM ends, a PIT 12 ms more.
//! 4. vCPUs.

use super::begins::Begins;
use super::board::{Board, Files, Start};
use super::boot_trace::{BootTrace, Phase};
use super::built::Built;
use super::devices::{Devices, FarEnds, event, make_scratch};
use super::error::Error;
use super::fitting::FittingConfig;
use super::fpu_ports::FpuPorts;
use super::generation;
use super::handle::{Starting, VmHandle};
use super::lifecycle::Lifecycle;
use super::processors;
use super::restoring;
use super::since::Since;
use super::vcpu::Shared;
use crate::config::{HugePages, VmConfig};
use crate::devices::outlet::{Outlet, Recall};
use crate::snapshot::{Saved, SnapshotId};
use crate::thread::ThreadKind;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::kvm;
use kvmlet_sys::thread::lock;
use kvmlet_sys::written::Written;
use std::any::Any;
use std::io::{self, Write};
use std::sync::Arc;

/// What tells which pages are written to, where it tells of all: what a disk is read to without the page cache the kernel has pinned,
/// and large pages of the pool's are one page each. That it tells of what vhost writes was seen on no host yet.
fn written(config: &VmConfig) -> Option<Written> {
    let is_direct = config.disks.iter().any(|disk| disk.direct);
    let is_kernels = config.nets.iter().any(|net| net.vhost);
    if is_direct || is_kernels || config.pci || config.huge_pages == HugePages::Reserved {
        return None;
    }
    let written = Written::new();
    if let Err(error) = &written {
        log::debug!("what its guest writes cannot be watched: {error}");
    }
    written.ok()
}

/// What it goes on from, if its memory is that file's where it was not written to.
fn base(board: &Board) -> Option<SnapshotId> {
    match &board.begins {
        Begins::Resumed(saved) if !board.ram.gives_back() => Some(saved.state.whole_id()),
        _ => None,
    }
}

/// A microVM that is built and has not run yet.
pub struct Vm(Built);

impl Vm {
    /// Builds a VM whose console output is discarded.
    ///
    /// # Errors
    /// See [`with_console`](Self::with_console).
    pub fn new(config: VmConfig) -> Result<Self, Error> {
        Self::with_console(config, std::io::sink())
    }

    /// Builds a VM whose first serial port writes to `output`. The VM's threads write there while the guest
    /// does, so a writer that blocks holds up the guest, but no pause and no end of the VM: for those its call is
    /// interrupted, which it is to tell ([`Interrupted`](io::ErrorKind::Interrupted)), as files, pipes and sockets do.
    ///
    /// # Errors
    /// KVM missing or too old, files that cannot be read or booted, sizes that do not fit this host: each
    /// names what is to blame.
    pub fn with_console(
        config: VmConfig,
        output: impl Write + Send + 'static,
    ) -> Result<Self, Error> {
        let config = FittingConfig::new(config)?;
        make_scratch(&config)?;
        Self::with_endpoints(config, None, output, FarEnds::default(), None)
    }

    /// Builds a VM with a far end for each network interface of the configuration: one that boots, or goes on where another
    /// was saved, with disks and far ends as they are called now. What KVM has told earlier VMs is looked up in the directory
    /// `notes`, which nobody else may write to, if one is given; it saves a tenth of a start.
    ///
    /// # Errors
    /// As [`with_console`](Self::with_console), and when an interface has no far end, or sockets have none, or the VM would
    /// not be what was saved.
    #[doc(hidden)] // of `kvmlet-run`
    pub fn with_endpoints(
        config: FittingConfig,
        saved: Option<Saved>,
        output: impl Write + Send + 'static,
        far_ends: impl Into<FarEnds>,
        notes: Option<&Directory>,
    ) -> Result<Self, Error> {
        let far_ends = far_ends.into();
        let trace = BootTrace::begin();
        let mut config = config.into_inner();
        let (asked, given) = (config.nets.len(), far_ends.interfaces.len());
        if asked != given {
            return Err(Error::Endpoints { asked, given });
        }
        if config.vsock.is_some() && far_ends.sockets.is_none() {
            return Err(Error::NoHostSide);
        }
        // Files first: a wrong path should be told before anything is set up.
        let machine = restoring::machine(&config, &far_ends);
        let start = match saved {
            None => Start::Boot(Files::open(&config)?),
            Some(saved) => {
                let same = restoring::check_machine(&saved.state.machine, &machine)
                    .and_then(|()| restoring::check_bus(&saved.state, config.pci));
                same.map_err(restoring::of(&saved.path))?;
                Start::Saved(Box::new(saved))
            }
        };
        let kvm = kvm::open()?;
        let recall = Recall::default();
        let outlet = Outlet::new(Box::new(output), recall.clone());
        let board = Board::build(&kvm, &mut config, start, outlet, far_ends, &trace)?;
        let cpuid = processors::plan_cpuid(&kvm, &board.fd, &config, notes)?;
        trace.mark(Phase::CpuidRead);
        let vcpus = processors::all(&kvm, &board.fd, &board.begins, &cpuid, &config.msrs)?;
        trace.mark(Phase::VcpusReady);
        let resumes = matches!(board.begins, Begins::Resumed(_));
        let since = Since::of(base(&board), board.ram.bytes())?;
        let fpu = FpuPorts::of(&board.begins, &cpuid, config.memory);
        if resumes {
            let devices = &board.devices;
            let ioapic = devices.power_button.ioapic();
            generation::announce(&board.fd, &devices.generation, ioapic)?;
            // While it was taken up there was no vCPU to be interrupted.
            lock(&devices.serial).again();
        }
        let Board {
            fd, ram, devices, ..
        } = board;

        let ended = event("an event for the end of the VM")?;
        let Devices {
            ports,
            mmio,
            slots: _,
            serial,
            power_button,
            power,
            generation,
            transports,
            pci,
            handles,
        } = devices;
        let lifecycle = Lifecycle::new(ended, recall);
        let shared = Shared {
            ram,
            ports,
            mmio,
            fpu,
            power_button,
            power,
            generation,
            serial,
            lifecycle,
            trace,
        };
        Ok(Self(Built {
            vcpus,
            fd,
            shared,
            handles,
            transports,
            machine,
            pci,
            written: written(&config),
            since,
            resumes,
            kept: Vec::new(),
        }))
    }

    /// Holds something until the VM has ended and is dropped: what its interfaces are connected to, for example.
    pub fn keep(&mut self, what: impl Any + Send + Sync) {
        self.0.kept.push(Box::new(what));
    }

    /// What the threads do that the VM will have.
    #[doc(hidden)] // of `kvmlet-run`
    pub fn threads(&self) -> Vec<ThreadKind> {
        let mut kinds = vec![ThreadKind::Vcpu; self.0.vcpus.len()];
        for transport in &self.0.transports {
            kinds.extend(lock(transport).session().threads());
        }
        kinds
    }

    /// Starts the vCPU threads and returns at once.
    ///
    /// vCPUs are called back by a signal: the first real-time signal that has no handler in this process when it starts
    /// its first VM. Install your own handlers before.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start(self) -> Result<VmHandle, Error> {
        VmHandle::start(self.0)
    }

    /// Starts all threads that the VM will ever have, each of which calls `on_start` before anything else. The VM
    /// is paused once they [have](Starting::wait), and [`VmHandle::resume`] lets the guest run.
    ///
    /// # Errors
    /// When the host gives no threads.
    #[doc(hidden)] // of `kvmlet-run`
    pub fn start_paused(
        self,
        on_start: impl Fn(ThreadKind) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Starting, Error> {
        Starting::begin(self.0, Arc::new(on_start))
    }
}
