//! A machine without its CPUs: guest RAM with all that is in it at the start, and devices.

use super::begins::Begins;
use super::boot_trace::{BootTrace, Phase};
use super::command_line;
use super::devices::{self, Devices, FarEnds};
use super::error::{Doing, Error};
use super::{generation, processors, restoring};
use crate::arch::x86_64::acpi::{self, MmioSlot};
use crate::arch::x86_64::address_map as map;
use crate::arch::x86_64::boot;
use crate::arch::x86_64::mptable;
use crate::config::{HugePages, VmConfig};
use crate::devices::outlet::Outlet;
use crate::memory::{Backing, GuestRam};
use crate::snapshot::{Difference, MEMORY_START, Saved};
use kvm_bindings::{KVM_CAP_HALT_POLL, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use kvmlet_sys::kvm::Execution;
use kvmlet_sys::regular;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// The files that a machine starts from.
pub(super) struct Files {
    kernel: File,
    initrd: Option<File>,
}

impl Files {
    pub fn open(config: &VmConfig) -> Result<Self, Error> {
        let initrd = config.initrd.as_deref();
        let mut kernel = open("guest kernel", &config.kernel)?;
        check_kernel_cpus(config, &mut kernel)?;
        let files = Self {
            kernel,
            initrd: initrd.map(|path| open("initrd", path)).transpose()?,
        };
        if let (Some(path), Some(file)) = (initrd, &files.initrd) {
            warn_of_unpacking(path, file);
        }
        Ok(files)
    }
}

/// A VM that has everything but vCPUs.
pub(super) struct Board {
    pub fd: Arc<VmFd>,
    pub ram: GuestRam,
    pub devices: Devices,
    /// What its vCPUs begin with.
    pub begins: Begins,
}

/// What a machine starts from.
pub(super) enum Start {
    /// A kernel.
    Boot(Files),
    /// What another was.
    Saved(Box<Saved>),
}

impl Board {
    /// Builds it in the order that KVM likes best; see [`machine`](super::machine).
    pub fn build(
        kvm: &Kvm,
        config: &mut VmConfig,
        start: Start,
        outlet: Outlet,
        far_ends: FarEnds,
        trace: &BootTrace,
    ) -> Result<Self, Error> {
        let fd = Arc::new(create_vm(kvm).doing("create a VM")?);
        set_reserved_pages(&fd)?;
        if config.quota.cpu.is_some() {
            poll_no_halted_vcpus(kvm, &fd)?;
        }
        if !config.pmu {
            processors::leave_out_counters(kvm, &fd)?;
        }
        trace.mark(Phase::VmCreated);

        check_limits(kvm, config)?;
        let ram = match &start {
            Start::Boot(_) => allocate_ram(config)?,
            Start::Saved(saved) => restore_ram(config, saved)?,
        };
        register_ram(&fd, &ram)?;
        trace.mark(Phase::MemoryReady);

        let networks = devices::network_specs(&far_ends.interfaces);
        config.guest.networks.extend(networks);
        let devices = Devices::build(&fd, &ram, config, far_ends, outlet)?;
        trace.mark(Phase::DevicesReady);

        let begins = match start {
            Start::Boot(mut files) => {
                Begins::Booted(load_guest(&ram, config, &devices.slots, &mut files)?)
            }
            Start::Saved(saved) => Begins::Resumed(saved),
        };
        generation::renew(&ram)?;
        trace.mark(Phase::KernelLoaded);
        let board = Self {
            fd,
            ram,
            devices,
            begins,
        };
        if let Begins::Resumed(saved) = &board.begins {
            restoring::take_up(&board.devices, saved)?;
        }
        Ok(board)
    }
}

/// Creates a VM. The kernel gives that up for any signal, also for one that has a process that was stopped go on.
fn create_vm(kvm: &Kvm) -> Result<VmFd, kvm_ioctls::Error> {
    const TRIES: u32 = 100;
    let mut tries = 1;
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR && tries < TRIES => tries += 1,
            created => return created,
        }
    }
}

fn open(what: &'static str, path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Open {
        what,
        path: path.into(),
        source,
    };
    // Nothing is waited for: the signals that end a start wait for the VM.
    regular::open(path).map_err(failed)
}

/// Where KVM interprets guest kernel code, a kernel unpacks an initrd in minutes, or fails at an instruction that
/// KVM does not know.
fn warn_of_unpacking(path: &Path, file: &File) {
    let mut head = [0; 6];
    let compression = match file.read_at(&mut head, 0) {
        Ok(bytes) => boot::compression(&head[..bytes]),
        Err(_) => None, // told when it is loaded
    };
    let Some((name, command)) = compression else {
        return;
    };
    if let Ok(Execution::Interpreted) = Execution::detect() {
        log::warn!(
            "the initrd `{}` is compressed by {name}: this host interprets guest kernel code, and a guest unpacks it in \
             minutes or not at all; give it unpacked (`{command}`)",
            path.display()
        );
    }
}

/// Linux leaves CPUs alone that it was not built for, and says so in its log only. To find out takes longer than a
/// small VM's start, so small VMs do not.
fn check_kernel_cpus(config: &VmConfig, kernel: &mut File) -> Result<(), Error> {
    const SMALL: u8 = 16;
    let asked = config.vcpus.get();
    let limit = match asked {
        0..=SMALL => return Ok(()),
        _ => boot::cpu_limit(kernel),
    };
    match limit {
        Some(limit) if u32::from(asked) > limit => Err(Error::KernelCpus {
            asked,
            limit,
            path: config.kernel.clone(),
        }),
        _ => Ok(()),
    }
}

/// Pages that KVM needs on Intel processors without unrestricted guest mode; elsewhere it ignores them.
fn set_reserved_pages(fd: &VmFd) -> Result<(), Error> {
    fd.set_identity_map_address(map::KVM_IDENTITY_MAP)
        .doing("place its identity map")?;
    fd.set_tss_address(map::KVM_TSS as usize)
        .doing("place its task state segment")
}

/// KVM looks for a while whether a vCPU that halts is woken again, before it sleeps (`halt_poll_ns` in
/// Documentation/virt/kvm/halt-polling.rst): time of the vCPU's thread that the guest has not used, and that a CPU
/// quota would take from it all the same.
fn poll_no_halted_vcpus(kvm: &Kvm, fd: &VmFd) -> Result<(), Error> {
    // kvm-ioctls has no name for it. Kernels before 5.11 have only the parameter of the module.
    if kvm.check_extension_raw(KVM_CAP_HALT_POLL.into()) <= 0 {
        return Ok(());
    }
    let cap = kvm_enable_cap {
        cap: KVM_CAP_HALT_POLL,
        // args[0], the longest time in nanoseconds, is zero.
        ..Default::default()
    };
    fd.enable_cap(&cap)
        .doing("stop polling for halted vCPUs (KVM_CAP_HALT_POLL)")
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
    Ok(())
}

fn allocate_ram(config: &VmConfig) -> Result<GuestRam, Error> {
    let ranges = map::ram_ranges(config.memory);
    Ok(GuestRam::allocate(&ranges, backing(config))?)
}

fn backing(config: &VmConfig) -> Backing {
    Backing {
        pages: config.huge_pages,
        prefault: config.prefault,
    }
}

/// A file's own pages are small, and shared by all who have it mapped.
fn restore_ram(config: &VmConfig, saved: &Saved) -> Result<GuestRam, Error> {
    let ranges = map::ram_ranges(config.memory);
    let (file, pages) = (&saved.memory, config.huge_pages);
    let ram = match &saved.pager {
        Some(pager) => {
            let removals = config.balloon.is_some();
            GuestRam::of_pager(&ranges, pages, pager, MEMORY_START, removals)
        }
        None if pages == HugePages::Off => GuestRam::of_file(&ranges, file, MEMORY_START),
        None => GuestRam::copy_of_file(&ranges, backing(config), file, MEMORY_START),
    };
    let ram = ram?;
    if let Some(Difference { file, pages, .. }) = &saved.difference {
        let laid = ram.lay_over(pages, file, MEMORY_START);
        laid.map_err(|source| Error::Host {
            what: "what has changed since the base of the snapshot",
            source,
        })?;
    }
    Ok(ram)
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
    files: &mut Files,
) -> Result<boot::BootState, Error> {
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
    let loaded = boot::load_kernel(ram, config.memory, &mut files.kernel).map_err(failed)?;
    let rsdp = acpi::write(&**ram, config.vcpus, slots, config.pci)?;
    mptable::write(&**ram, config.vcpus)
        .map_err(|source| Error::MpTable(io::Error::other(source)))?;
    let cmdline = command_line::compose(config, slots);
    let initrd = files.initrd.as_mut();
    boot::finish(ram, config.memory, &loaded, initrd, &cmdline, rsdp).map_err(failed)
}
