//! What can go wrong with a VM.

use super::failure::Failure;
use super::lifecycle::State;
use super::refusal::Refusal;
use crate::arch::x86_64::{acpi, boot, msr};
use crate::config::{Advice, Memory, Remedy, Setting, advice};
use crate::devices::pci::MOST_FUNCTIONS;
use crate::devices::virtio::{NoEvents, net};
use crate::{config, devices, memory};
use kvmlet_sys::kvm;
use std::io;
use std::path::PathBuf;

/// Why a VM could not be built, moved or run on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is not one that can work.
    #[error("the configuration is not valid")]
    Config(#[from] config::Error),
    /// KVM is not there or not usable.
    #[error("KVM is not usable")]
    Kvm(#[from] kvm::Error),
    /// One of KVM's calls failed.
    #[error("KVM cannot {doing}")]
    KvmCall {
        /// What was to be done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host's KVM lacks something that every VM needs.
    #[error("this host's KVM has no {0}")]
    KvmLacks(&'static str),
    /// Virtualization in the guest that KVM does not offer.
    #[error("this host's KVM offers guests no virtualization of their own (VT-x or SVM)")]
    NestedMissing,
    /// Performance counters that KVM does not offer.
    #[error("this host's KVM offers guests no performance counters")]
    PmuMissing,
    /// A model-specific register that KVM does not have, or that does not take what it should hold.
    #[error("this host's KVM does not take the model-specific register {index:#x} ({name})")]
    Msr {
        /// Its number.
        index: u32,
        /// What the manuals call it.
        name: &'static str,
    },
    /// A leaf of CPUID that is to be changed and that nobody has.
    #[error("the guest's CPUID has no leaf {:#x}.{:#x}, of which `{change}` would change bits", .change.leaf, .change.subleaf)]
    CpuidLeaf {
        /// What was to be done.
        change: config::CpuidChange,
    },
    /// A disk that cannot be used.
    #[error("cannot give the VM a disk")]
    Disk(#[from] devices::virtio::block::Error),
    /// An interface that the host's kernel is to serve, and cannot.
    #[error("cannot give the VM a network interface")]
    Vhost(#[source] net::Unusable),
    /// Network interfaces that lead nowhere.
    #[error(
        "the configuration has {asked} network interfaces, and {given} were connected to something"
    )]
    Endpoints {
        /// Interfaces of the configuration.
        asked: usize,
        /// Far ends that were given.
        given: usize,
    },
    /// Sockets between guest and host that nobody has on the host's side.
    #[error(
        "the configuration has sockets between guest and host, and nobody was given who has the host's"
    )]
    NoHostSide,
    /// More devices than there are interrupt lines.
    #[error("more than {limit} disks, interfaces and other devices in one VM")]
    DeviceLimit {
        /// How many there can be.
        limit: usize,
    },
    /// More queues than there are interrupts by messages.
    #[error(
        "the queues of this VM's devices are more than the {limit} that can interrupt on a PCI bus"
    )]
    MessageLimit {
        /// How many there can be.
        limit: usize,
    },
    /// More vCPUs than KVM takes.
    #[error("{asked} vCPUs are more than this host's KVM takes ({limit})")]
    VcpuLimit {
        /// vCPUs asked for.
        asked: u8,
        /// KVM_CAP_MAX_VCPUS.
        limit: usize,
    },
    /// More vCPUs than the guest kernel was built for.
    #[error("{asked} vCPUs are more than the kernel `{}` was built for ({limit})", path.display())]
    KernelCpus {
        /// vCPUs asked for.
        asked: u8,
        /// Its NR_CPUS.
        limit: u32,
        /// The kernel.
        path: PathBuf,
    },
    /// More memory than the guest can address.
    #[error(
        "{memory} of guest memory would end at {end:#x}, and this host's guests have {bits}-bit physical addresses"
    )]
    AddressWidth {
        /// Memory asked for.
        memory: Memory,
        /// Where it would end.
        end: u64,
        /// Width of guest physical addresses.
        bits: u8,
    },
    /// More memory than the host has.
    #[error("{memory} of guest memory is more than this host has ({})", Memory::from_bytes(*.host_bytes))]
    HostMemory {
        /// Memory asked for.
        memory: Memory,
        /// All RAM of the host.
        host_bytes: u64,
    },
    /// Guest memory could not be had.
    #[error("cannot set up guest memory")]
    Memory(#[from] memory::Error),
    /// A file that the VM is made of cannot be opened.
    #[error("cannot open {what} `{}`", path.display())]
    Open {
        /// What the file is for.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Kernel, initrd or command line do not make a bootable guest.
    #[error("cannot boot {what} `{}`", path.display())]
    Boot {
        /// Which of the files is to blame.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: boot::Error,
    },
    /// The tables that describe the machine cannot be written.
    #[error("cannot describe the machine to its guest")]
    Acpi(#[from] acpi::Error),
    /// The MP table cannot be written.
    #[error("cannot describe the CPUs to the guest")]
    MpTable(#[source] io::Error),
    /// Two devices at one address (a bug).
    #[error("cannot place a device")]
    Bus(#[from] devices::bus::Overlap),
    /// A list for KVM is too long (a bug).
    #[error("a list for KVM is too long: {0}")]
    List(String),
    /// The host gave no event, no signal or no memory map.
    #[error("the host cannot give {what}")]
    Host {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host gave no thread, or one that could not begin.
    #[error("the host cannot give a thread for {of}")]
    Thread {
        /// What it was to serve.
        of: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A move that the lifecycle does not have.
    #[error("cannot {verb} a VM that is {from}")]
    Transition {
        /// What was asked for.
        verb: &'static str,
        /// Where the VM is.
        from: State,
    },
    /// A device waits for the host, which may change guest memory when it answers.
    #[error("cannot pause the VM: the host has not answered what {device} has asked of it")]
    Unsettled {
        /// The name by which the guest knows it.
        device: String,
    },
    /// A VM that is being saved sleeps until it is.
    #[error("the VM is being saved")]
    BeingSaved,
    /// A VM that is to tell what has changed since a snapshot of which it knows nothing.
    #[error(
        "what has changed since that snapshot is not known: the VM neither goes on from it, nor was it the last whole one of it"
    )]
    OtherBase,
    /// Nobody counts what is written to.
    #[error(
        "what the VM has changed is not known: this host or its memory, disks or bus do not allow to count it"
    )]
    Uncounted,
    /// A VM that has state which is not told.
    #[error("a VM whose guest can have guests of its own cannot be saved")]
    Nested,
    /// A snapshot that no VM can go on from here.
    #[error("no VM can go on from snapshot `{}`", path.display())]
    Saved {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Refusal,
    },
    /// KVM could not go on.
    #[error("the VM cannot go on")]
    Failed(#[source] Failure),
}

impl From<NoEvents> for Error {
    fn from(NoEvents { what, source }: NoEvents) -> Self {
        Self::Host { what, source }
    }
}

impl From<net::Unusable> for Error {
    fn from(error: net::Unusable) -> Self {
        match error {
            net::Unusable::Events(source) => Self::Host {
                what: "events for a network interface",
                source,
            },
            error => Self::Vhost(error),
        }
    }
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Error::Config(error) => error.remedy(),
            Error::Kvm(error) => Some(error.help().into()),
            Error::Disk(error) => error.remedy(),
            Error::Vhost(net::Unusable::Open(_)) => Some(advice!(
                "load the module (`modprobe vhost_net`), and let this user open its device|leave out {}",
                Setting::NetVhost
            )),
            Error::Vhost(_) => Some(advice!("leave out {}", Setting::NetVhost)),
            Error::Endpoints { .. } | Error::NoHostSide => {
                Some("make a far end for each: `kvmlet::vm::build` does".into())
            }
            Error::Boot { source, .. } => source.help(),
            Error::Open {
                what: "guest kernel",
                ..
            } => Some(advice!(
                "build one with `kernels/build`|name another with {}",
                Setting::Kernel
            )),
            Error::Memory(memory::Error::Map {
                pages: config::HugePages::Reserved,
                ..
            }) => Some(advice!(
                "reserve pages of 2 MiB (`sysctl vm.nr_hugepages=N`)|take {}",
                (Setting::HugePages, "transparent")
            )),
            Error::Memory(memory::Error::Pager(memory::PagerError::Faults(source)))
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(advice!(
                    "run it as root|let this user have userfaultfds: `setfacl -m u:USER:rw /dev/userfaultfd` (Linux 6.1), or `sysctl vm.unprivileged_userfaultfd=1`"
                ))
            }
            Error::Memory(memory::Error::Pager(memory::PagerError::Untold { .. })) => Some(
                "look why it has ended: it is to listen, and to keep a connection until it has its message"
                    .into(),
            ),
            Error::Memory(memory::Error::Pager(_) | memory::Error::Copy(_)) => None,
            Error::Memory(_) | Error::HostMemory { .. } => {
                Some(advice!("ask for less {}", Setting::Memory))
            }
            Error::KvmLacks(_) => Some("run `kvmlet doctor` to see what this host offers".into()),
            Error::Thread { source, .. } if source.raw_os_error() == Some(libc::EAGAIN) => {
                Some(kvmlet_sys::process::MORE_PROCESSES.into())
            }
            Error::Open { what: "initrd", .. } => Some(advice!(
                "build one with `images/build minimal`|leave out {}",
                Setting::Initrd
            )),
            Error::Unsettled { .. } => Some(
                "the VM runs on; try again, and look whether the host's disk works (`dmesg`)"
                    .into(),
            ),
            Error::KernelCpus { .. } => Some(advice!(
                "ask for fewer {}|boot a kernel with a larger NR_CPUS",
                Setting::Vcpus
            )),
            Error::NestedMissing => Some(advice!(
                "load kvm_intel or kvm_amd with nested=1 where the processor has VT-x or SVM|leave out {}",
                Setting::Nested
            )),
            Error::PmuMissing => Some(advice!(
                "load kvm with enable_pmu=1|leave out {}",
                Setting::Pmu
            )),
            Error::DeviceLimit { limit } if *limit < MOST_FUNCTIONS => Some(advice!(
                "a PCI bus has room for {} of them: {}",
                MOST_FUNCTIONS.to_string(),
                Setting::Pci
            )),
            Error::Nested => Some(advice!("start it without {}", Setting::Nested)),
            Error::OtherBase | Error::Uncounted => Some("save all of it, without a base".into()),
            Error::BeingSaved => Some("try again when it is".into()),
            Error::Failed(failure) => failure.remedy(),
            _ => None,
        }
    }
}

impl Error {
    /// A model-specific register that KVM does not take.
    pub(super) fn refused_msr(index: u32) -> Self {
        let name = msr::name(index);
        Self::Msr { index, name }
    }
}

/// Names what a KVM call was for.
pub(super) trait Doing<T> {
    /// Turns an errno into an error that says what was to be done.
    fn doing(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, kvm_ioctls::Error> {
    fn doing(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|errno| Error::KvmCall {
            doing: what,
            source: errno.into(),
        })
    }
}
