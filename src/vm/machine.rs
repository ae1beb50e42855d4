//! Putting a machine together, in the order that KVM likes best.
//!
//! 1. Create the VM.
//! 2. Register memory: after an interrupt controller or vCPUs exist this waits for an SRCU grace period, 6 to
//!    8 ms.
//! 3. Split the interrupt controller: a full one in the kernel costs 14 ms when the VM ends, a PIT 12 ms more.
//! 4. vCPUs.

use super::boot_trace::{BootTrace, Phase};
use super::devices::{self, Devices, Transport, event};
use super::error::{Doing, Error};
use super::handle::VmHandle;
use super::lifecycle::Lifecycle;
use super::vcpu::{Shared, Vcpu};
use crate::arch::x86_64::acpi::{self, MmioSlot};
use crate::arch::x86_64::address_map as map;
use crate::arch::x86_64::boot::{self, BootState};
use crate::arch::x86_64::cpuid::{CpuidFacts, CpuidPlan};
use crate::arch::x86_64::{lapic, mptable, msr};
use crate::config::{Balloon, HugePages, Memory, VmConfig};
use crate::devices::boot_timer::Ready;
use crate::devices::bus::lock;
use crate::devices::serial::SerialInput;
use crate::devices::virtio::balloon::BalloonHandle;
use crate::devices::virtio::block::BlockHandle;
use crate::devices::virtio::net::NetHandle;
use crate::devices::virtio::rng::RngHandle;
use crate::host;
use crate::host::net::{Endpoint, Network};
use crate::host::thread::ThreadKind;
use crate::memory::{Backing, GuestRam};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// A microVM that is built and has not run yet.
pub struct Vm {
    // Declared first, dropped first: vCPUs go before the VM, and guest RAM after both.
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) fd: Arc<VmFd>,
    pub(super) shared: Shared,
    pub(super) console: SerialInput,
    pub(super) ready: Ready,
    pub(super) entropy: RngHandle,
    pub(super) disks: Vec<BlockHandle>,
    pub(super) interfaces: Vec<NetHandle>,
    pub(super) balloon: Option<BalloonHandle>,
    pub(super) transports: Vec<Transport>,
    /// The host's side of the interfaces, where this process has it.
    pub(super) networks: Vec<Network>,
}

impl Vm {
    /// Builds a VM whose console output is discarded.
    ///
    /// # Errors
    /// See [`with_console`](Self::with_console).
    pub fn new(config: VmConfig) -> Result<Self, Error> {
        Self::with_console(config, std::io::sink())
    }

    /// Builds a VM whose first serial port writes to `output`. The VM's threads write there while the guest
    /// does, so a writer that blocks holds up the guest.
    ///
    /// # Errors
    /// KVM missing or too old, files that cannot be read or booted, sizes that do not fit this host: each
    /// names what is to blame.
    pub fn with_console(
        config: VmConfig,
        output: impl Write + Send + 'static,
    ) -> Result<Self, Error> {
        let mut networks = set_up_networks(&config)?;
        for network in &mut networks {
            network.serve()?;
        }
        let endpoints = networks
            .iter()
            .map(|network| network.endpoint().clone())
            .collect();
        let mut vm = Self::with_endpoints(config, output, endpoints)?;
        vm.networks = networks;
        Ok(vm)
    }

    /// Builds a VM on [networks](set_up_networks) that somebody else holds, one for each interface of the
    /// configuration.
    ///
    /// # Errors
    /// See [`with_console`](Self::with_console).
    pub fn with_endpoints(
        mut config: VmConfig,
        output: impl Write + Send + 'static,
        endpoints: Vec<Endpoint>,
    ) -> Result<Self, Error> {
        let trace = BootTrace::begin();
        // Files first: a wrong path should be told before anything is set up.
        let mut kernel = open("guest kernel", &config.kernel)?;
        let mut initrd = config
            .initrd
            .as_deref()
            .map(|path| open("initrd", path))
            .transpose()?;

        let kvm = host::kvm::open()?;
        let fd = Arc::new(kvm.create_vm().doing("create a VM")?);
        set_reserved_pages(&fd)?;
        trace.mark(Phase::VmCreated);

        check_limits(&kvm, &config)?;
        let ram = allocate_ram(&config)?;
        register_ram(&fd, &ram)?;
        trace.mark(Phase::MemoryReady);

        let networks = devices::network_specs(&endpoints);
        config.guest.networks.extend(networks);
        let devices = Devices::build(&fd, &ram, &config, endpoints, Box::new(output))?;
        trace.mark(Phase::DevicesReady);

        let state = load_guest(&ram, &config, &devices.slots, &mut kernel, initrd.as_mut())?;
        trace.mark(Phase::KernelLoaded);

        let cpuid = plan_cpuid(&kvm, &fd, &config)?;
        trace.mark(Phase::CpuidRead);

        let vcpus = (0..config.vcpus.get())
            .map(|number| build_vcpu(&fd, number, &cpuid, &state))
            .collect::<Result<Vec<_>, _>>()?;
        trace.mark(Phase::VcpusReady);

        let ended = event("an event for the end of the VM")?;
        let Devices {
            ports,
            mmio,
            console,
            ready,
            on_eoi,
            transports,
            entropy,
            disks,
            interfaces,
            balloon,
            ..
        } = devices;
        let lifecycle = Lifecycle::new(ended);
        let shared = Shared {
            ram,
            ports,
            mmio,
            on_eoi,
            lifecycle,
            trace,
        };
        Ok(Self {
            vcpus,
            fd,
            shared,
            console,
            ready,
            entropy,
            disks,
            interfaces,
            transports,
            networks: Vec::new(),
            balloon,
        })
    }

    /// What the threads do that the VM will have.
    pub fn threads(&self) -> Vec<ThreadKind> {
        let mut kinds = vec![ThreadKind::Vcpu; self.vcpus.len()];
        for transport in &self.transports {
            kinds.extend(lock(transport).threads());
        }
        kinds
    }

    /// Starts the vCPU threads and returns at once.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start(self) -> Result<VmHandle, Error> {
        VmHandle::start(self)
    }

    /// Starts all threads that the VM will ever have, each of which calls `on_start` before anything else, and
    /// leaves the VM paused: [`VmHandle::resume`] lets the guest run.
    ///
    /// # Errors
    /// When the host gives no threads, and what `on_start` says.
    pub fn start_paused(
        self,
        on_start: impl Fn(ThreadKind) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<VmHandle, Error> {
        VmHandle::start_paused(self, Arc::new(on_start))
    }
}

/// Sets up the host's side of a configuration's interfaces, in their order, and says in the log what will not
/// work.
///
/// # Errors
/// Names what cannot be had.
pub fn set_up_networks(config: &VmConfig) -> Result<Vec<Network>, Error> {
    let runtime = host::runtime_directory();
    let mut networks = Vec::new();
    for net in &config.nets {
        let network = Network::set_up(net, &runtime)?;
        for warning in network.warnings() {
            log::warn!("{warning}");
        }
        networks.push(network);
    }
    Ok(networks)
}

fn open(what: &'static str, path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Open {
        what,
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    Ok(file)
}

/// Pages that KVM needs on Intel processors without unrestricted guest mode; elsewhere it ignores them.
fn set_reserved_pages(fd: &VmFd) -> Result<(), Error> {
    fd.set_identity_map_address(map::KVM_IDENTITY_MAP)
        .doing("place its identity map")?;
    fd.set_tss_address(map::KVM_TSS as usize)
        .doing("place its task state segment")
}

fn plan_cpuid(kvm: &Kvm, fd: &VmFd, config: &VmConfig) -> Result<CpuidPlan, Error> {
    let offer = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .doing("tell which CPU features it supports")?;
    let facts = CpuidFacts {
        vcpus: config.vcpus,
        mask: &config.cpu_mask,
        tsc_khz: tsc_khz(fd),
        tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
    };
    let plan = CpuidPlan::new(&offer, facts);
    let (memory, bits) = (config.memory, plan.physical_bits());
    let end = map::ram_end(memory);
    if end > 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX) {
        return Err(Error::AddressWidth { memory, end, bits });
    }
    Ok(plan)
}

/// The TSC frequency that new vCPUs get, where KVM tells it for a VM (KVM_CAP_VM_TSC_CONTROL) or at all.
fn tsc_khz(fd: &VmFd) -> Option<u32> {
    // KVM_GET_TSC_KHZ as a VM ioctl; kvm-ioctls has it for vCPUs only, which do not exist yet.
    const KVM_GET_TSC_KHZ: libc::c_ulong = 0xaea3;
    use std::os::fd::AsRawFd;
    // SAFETY: the ioctl takes no argument and returns a number or an error.
    let khz = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_TSC_KHZ) };
    u32::try_from(khz).ok().filter(|khz| *khz > 0)
}

fn check_limits(kvm: &Kvm, config: &VmConfig) -> Result<(), Error> {
    if !kvm.check_extension(Cap::SplitIrqchip) {
        return Err(Error::KvmLacks(
            "split irqchip (KVM_CAP_SPLIT_IRQCHIP, Linux 4.4)",
        ));
    }
    let (asked, limit) = (config.vcpus.get(), kvm.get_max_vcpus());
    if usize::from(asked) > limit {
        return Err(Error::VcpuLimit { asked, limit });
    }
    check_host_memory(config.memory)
}

/// Can a VM have so much memory on this host, if it had the host for itself?
///
/// # Errors
/// [`Error::HostMemory`] when it is more than the host has.
pub fn check_host_memory(memory: Memory) -> Result<(), Error> {
    let host_bytes = host::total_memory_bytes();
    match memory.bytes() > host_bytes {
        true => Err(Error::HostMemory { memory, host_bytes }),
        false => Ok(()),
    }
}

fn allocate_ram(config: &VmConfig) -> Result<GuestRam, Error> {
    let backing = Backing {
        pages: config.huge_pages,
        prefault: config.prefault,
    };
    Ok(GuestRam::allocate(
        &map::ram_ranges(config.memory),
        backing,
    )?)
}

fn register_ram(fd: &VmFd, ram: &GuestRam) -> Result<(), Error> {
    for (slot, region) in (0u32..).zip(ram.iter()) {
        let host = region
            .get_host_address(MemoryRegionAddress(0))
            .map_err(|error| Error::Host {
                what: "guest memory",
                source: io::Error::other(error),
            })?;
        let slot = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
            flags: 0,
        };
        // SAFETY: the mapping belongs to `GuestRam`, which lives as long as the VM does: `Shared` holds it,
        // and every vCPU thread and handle holds `Shared`. Slots do not overlap, as regions do not.
        unsafe { fd.set_user_memory_region(slot) }.doing("register guest memory")?;
    }
    Ok(())
}

/// Everything that is in guest memory before the first instruction.
fn load_guest(
    ram: &GuestRam,
    config: &VmConfig,
    slots: &[MmioSlot],
    kernel: &mut File,
    initrd: Option<&mut File>,
) -> Result<BootState, Error> {
    let failed = |source: boot::Error| {
        let initrd = config.initrd.as_ref().filter(|_| source.concerns_initrd());
        let (what, path) = match initrd {
            Some(path) => ("with initrd", path),
            None => ("guest kernel", &config.kernel),
        };
        Error::Boot {
            what,
            path: path.clone(),
            source,
        }
    };
    let loaded = boot::load_kernel(ram, config.memory, kernel).map_err(failed)?;
    let rsdp = acpi::write(&**ram, config.vcpus, slots)?;
    mptable::write(&**ram, config.vcpus).map_err(Error::MpTable)?;
    let cmdline = command_line(config, slots);
    boot::finish(ram, config.memory, &loaded, initrd, &cmdline, rsdp).map_err(failed)
}

/// How free page reporting works, what the user gave, which may overrule that, what kernels without ACPI need
/// to find devices (Linux drivers/virtio/virtio_mmio.c, `virtio_mmio.device=`), and what the guest's init is
/// told.
fn command_line(config: &VmConfig, slots: &[MmioSlot]) -> String {
    let mut parts = vec![reporting_order(config), config.cmdline.clone()];
    for MmioSlot {
        address,
        bytes,
        irq,
    } in slots
    {
        parts.push(format!(
            "virtio_mmio.device={}K@{address:#x}:{irq}",
            bytes >> 10
        ));
    }
    parts.push(config.guest.to_cmdline());
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// In which blocks a Linux guest reports free memory, 2^N pages each (mm/page_reporting.c). Its default is
/// 2 or 4 MiB, and it reports only while 32 blocks are free: small guests never would. So 128 KiB, unless
/// that would tear the host's huge pages apart.
fn reporting_order(config: &VmConfig) -> String {
    let order = match (config.balloon, config.huge_pages) {
        (
            Some(Balloon {
                reporting: true, ..
            }),
            HugePages::Off,
        ) => 5,
        (
            Some(Balloon {
                reporting: true, ..
            }),
            _,
        ) => 9,
        _ => return String::new(),
    };
    format!("page_reporting.page_reporting_order={order}")
}

/// Creates a vCPU. The first gets the boot state; the others wait for the guest to start them (INIT, SIPI).
fn build_vcpu(vm: &VmFd, number: u8, cpuid: &CpuidPlan, state: &BootState) -> Result<Vcpu, Error> {
    let fd = vm.create_vcpu(number.into()).doing("create a vCPU")?;
    fd.set_cpuid2(&cpuid.for_vcpu(number).map_err(Error::List)?)
        .doing("set a vCPU's CPUID")?;
    fd.set_msrs(&msr::boot_msrs().map_err(Error::List)?)
        .doing("set a vCPU's model-specific registers")?;
    let mut local_apic = fd.get_lapic().doing("read a vCPU's local APIC")?;
    lapic::set_local_pins(&mut local_apic);
    fd.set_lapic(&local_apic).doing("set a vCPU's local APIC")?;
    if number == 0 {
        let mut special = fd.get_sregs().doing("read a vCPU's registers")?;
        state.apply(&mut special);
        fd.set_sregs(&special)
            .doing("set a vCPU's special registers")?;
        fd.set_regs(&state.registers)
            .doing("set a vCPU's registers")?;
    }
    Ok(Vcpu {
        number,
        fd,
        counters: Default::default(),
    })
}
