//! What a user asks for: plain types, checked once, no I/O.
//!
//! A [`VmConfig`] comes from the builder or from JSON and is complete when it exists: sizes, counts and
//! names in it are in range. What depends on the host (does the file exist, has the machine that much
//! memory?) is found out by `kvmlet::Vm::new`.

mod advice;
mod balloon;
mod builder;
mod cgroup_parent;
mod complete;
mod cpu_features;
mod cpu_mask;
mod cpu_set;
mod cpu_template;
mod definitions;
mod disk;
mod disk_source;
mod egress;
mod error;
mod extents;
mod flag;
mod given;
mod interface;
mod jail_mode;
mod json;
mod json_text;
mod json_words;
mod memory;
mod metadata;
mod name_server;
mod nearest;
mod net;
mod net_backend;
mod outcome;
mod port_mapping;
mod queue_pairs;
mod quota;
mod rate_limit;
mod remedies;
mod service;
mod setting;
mod start_record;
mod stats;
mod strict;
pub mod supervision;
mod twice;
mod vsock;
mod words;
mod written;

pub use advice::{Advice, Piece, Remedy};
pub use balloon::Balloon;
pub use builder::VmConfigBuilder;
pub use cgroup_parent::CgroupParent;
pub use cpu_features::{FeatureBit, Register};
pub use cpu_mask::CpuMask;
pub use cpu_set::CpuSet;
pub use cpu_template::{BitChange, CpuTemplateError, CpuidChange, MsrChange};
pub use disk::{Cache, Disk, DiskFormat, DiskIo, QueueCount, Scratch, Serial};
pub use disk_source::DiskSource;
pub use egress::Egress;
pub use error::Error;
pub use extents::{Extent, Extents, ExtentsError};
pub use given::Given;
pub use interface::{GuestAddress, Interface};
pub use jail_mode::JailMode;
pub use memory::{HugePages, Memory, MemorySize};
pub use metadata::Metadata;
pub use name_server::NameServer;
pub use net::is_interface_name;
pub use net::{MacAddress, Mtu, Net, Subnet};
pub use net_backend::NetBackend;
pub use outcome::{Failure, Outcome, Reason, Stats};
pub use port_mapping::{HostAddress, HostPort, PortMapping, PortMappings, Protocol};
pub use queue_pairs::QueuePairs;
pub use quota::thousandths;
pub use quota::{CpuQuota, CpuScope, CpuWeight, Factor, MemoryMode, Overcommit, Quota};
pub use rate_limit::{Rate, RateLimit};
pub use setting::{Definition, Dialect, Setting};
pub use start_record::{PhaseRecord, StartRecord};
pub use stats::{
    BalloonStats, BlockStats, DirectionStats, GuestStatistics, HostStats, MemoryStats, NetStats,
    RngStats, VcpuStats, VmStats, VsockStats,
};
pub use vsock::{Cid, Vsock, VsockError};

pub use kvmlet_contract::{ConsoleSize, GuestSpec, NetworkSpec, Overlay, RootSpec, ServiceSpec};

use serde::Deserialize;
use std::path::PathBuf;

/// The kernel command line that is used when the user gives none.
///
/// `reboot=k` makes a reboot a keyboard-controller reset, which the VMM sees at once; `panic=-1` makes a
/// panic reboot without delay; `quiet` leaves out what is no warning, and a `loglevel=7` behind it brings that back (Linux
/// Documentation/admin-guide/kernel-parameters.txt).
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";

/// How many vCPUs a VM has: 1 to [`VcpuCount::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "u64")]
pub struct VcpuCount(u8);

impl VcpuCount {
    /// APIC ids are eight bits wide in the MP table and in xAPIC mode; 255 is broadcast and the IOAPIC
    /// needs one of its own.
    pub const MAX: u8 = 254;

    /// The count as a number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for VcpuCount {
    type Error = Error;

    fn try_from(count: u64) -> Result<Self, Error> {
        match u8::try_from(count) {
            Ok(n @ 1..=Self::MAX) => Ok(Self(n)),
            _ => Err(Error::VcpuRange { count }),
        }
    }
}

/// One microVM as its user describes it. Made by [`VmConfig::builder`] or [`VmConfig::from_json`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmConfig {
    /// The guest kernel: an ELF `vmlinux` or a bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk, if any.
    pub initrd: Option<PathBuf>,
    /// The kernel command line; the VMM appends what its devices need.
    pub cmdline: String,
    /// How much RAM the guest has.
    pub memory: Memory,
    /// Which pages back guest RAM.
    pub huge_pages: HugePages,
    /// Whether all guest RAM is touched before the guest starts.
    pub prefault: bool,
    /// How many vCPUs the guest has.
    pub vcpus: VcpuCount,
    /// CPUID bits that are hidden from the guest.
    pub cpu_mask: CpuMask,
    /// What the guest sees of CPUID instead, one after another.
    pub cpuid: Vec<CpuidChange>,
    /// What its CPUs' model-specific registers have in them instead.
    pub msrs: Vec<MsrChange>,
    /// Whether the guest can run virtual machines of its own.
    pub nested: bool,
    /// Whether the guest has performance counters.
    pub pmu: bool,
    /// Whether devices are on a PCI bus.
    pub pci: bool,
    /// What the VM may use of its host.
    pub quota: Quota,
    /// How much more than the host has may be promised to all VMs together.
    pub overcommit: Overcommit,
    /// The disks, in the order in which the guest names them: the root's first, if there is one.
    pub disks: Vec<Disk>,
    /// How big the disk that keeps the changes of the root is made where there is none of its name.
    pub scratch_size: Option<Memory>,
    /// The network interfaces, in the order in which the guest names them: `eth0` first.
    pub nets: Vec<Net>,
    /// How memory that the guest does not need comes back.
    pub balloon: Option<Balloon>,
    /// Sockets between guest and host.
    pub vsock: Option<Vsock>,
    /// Whether there is an entropy source.
    pub rng: bool,
    /// Whether the threads of disks look for requests for a moment before they sleep, where there is no CPU quota.
    pub poll: bool,
    /// What is to be done about the walls around the VM's process.
    pub jail: JailMode,
    /// Whether the VM runs, with a warning, where its host cannot hold it to what is asked for.
    pub best_effort: bool,
    /// Where statistics are written as JSON, when the VM ends and on request.
    pub stats: Option<PathBuf>,
    /// What the guest's init is told: which service to run, and how.
    pub guest: GuestSpec,
}

impl VmConfig {
    /// Starts a configuration with the defaults: 1 vCPU, 128 MiB, [`DEFAULT_CMDLINE`].
    pub fn builder() -> VmConfigBuilder {
        VmConfigBuilder::default()
    }

    /// Reads a configuration from JSON text. Keys are those of [`VmConfigBuilder`].
    ///
    /// # Errors
    /// Unknown keys are refused with the nearest known one; values are checked as the builder does.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        VmConfigBuilder::from_json(text)?.build()
    }

    /// What a VM may take of the host's memory beyond guest RAM: the VMM, and what the kernel keeps for it. It
    /// is well above what was measured, for a limit made of it to end a VMM that leaks and no other.
    ///
    /// - 8 MiB. Measured: 1.8, of which 0.9 are the kernel's.
    /// - A 64th of guest RAM for page tables and KVM's notes of pages. Measured: a 200th, all RAM touched.
    /// - 256 KiB for a vCPU. Measured: 120.
    /// - 1 MiB for a disk or an interface, for its queues and what is under way.
    /// - 18 MiB for sockets between guest and host: what a guest can have sent that no program has taken (16), and some
    ///   of it in the kernel.
    /// - 32 MiB if there is a disk that is written by way of the host's page cache, which counts as the VM's.
    ///   Measured: with 10, cgroups of version 1 killed a VM that wrote as fast as it could; with 24, none.
    pub fn overhead(&self) -> Memory {
        let vcpus = u64::from(self.vcpus.get()) * (256 << 10);
        let devices = (self.disks.len() + self.nets.len()) as u64 * (1 << 20);
        let is_cached = |disk: &Disk| !disk.read_only && !disk.direct;
        let cache = if self.disks.iter().any(is_cached) {
            32 << 20
        } else {
            0
        };
        let sockets = if self.vsock.is_some() { 18 << 20 } else { 0 };
        let fixed = (8 << 20) + sockets + cache;
        Memory::from_bytes(fixed + self.memory.bytes() / 64 + vcpus + devices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fill_everything_but_the_kernel() {
        assert!(matches!(
            VmConfig::builder().build(),
            Err(Error::KernelMissing)
        ));
        let config = VmConfig::builder().kernel("vmlinux").build().unwrap();
        assert_eq!(config.vcpus.get(), 1);
        assert_eq!(config.memory, 128.mib());
        assert_eq!(config.cmdline, DEFAULT_CMDLINE);
    }

    #[test]
    fn vcpu_counts_are_limited() {
        for (count, ok) in [
            (0, false),
            (1, true),
            (254, true),
            (255, false),
            (1 << 40, false),
        ] {
            let result = VmConfig::builder().kernel("k").vcpus(count).build();
            assert_eq!(result.is_ok(), ok, "{count}");
        }
    }

    #[test]
    fn the_service_is_described_to_init() {
        let config = VmConfig::builder()
            .kernel("k")
            .command(["sh", "-c"])
            .env("A", "1")
            .env("A", "2");
        let guest = config.clone().build().unwrap().guest;
        assert_eq!(guest.service.command, ["sh", "-c"]);
        assert_eq!(guest.service.env, [("A".to_string(), "2".to_string())]);
        assert!(config.env("B=C", "").build().is_err());
    }

    #[test]
    fn a_root_comes_first_and_stays_as_it_is() {
        let config = VmConfig::builder()
            .kernel("k")
            .disk(Disk::read_write("data"))
            .root("r.erofs");
        let alone = config.clone().build().unwrap();
        assert_eq!(
            alone.disks,
            [Disk::read_only("r.erofs"), Disk::read_write("data")]
        );
        assert_eq!(
            alone.guest.to_cmdline(),
            "kvmlet.root=/dev/vda,ro kvmlet.overlay=tmpfs"
        );
        let kept = config.scratch("s.ext4").build().unwrap();
        assert_eq!(kept.disks[1], Disk::read_write("s.ext4"));
        assert_eq!(
            kept.guest.to_cmdline(),
            "kvmlet.root=/dev/vda,ro kvmlet.overlay=/dev/vdb"
        );
        let fixed = VmConfig::builder().kernel("k").root("r").read_only(true);
        let changing = fixed.clone().scratch("s").build();
        assert!(matches!(changing, Err(Error::ScratchAlone)));
        let fixed = fixed.build().unwrap();
        assert_eq!(fixed.guest.to_cmdline(), "kvmlet.root=/dev/vda,ro");
        let again = VmConfig::from_json(&fixed.to_json().unwrap());
        assert_eq!(again.unwrap(), fixed);
        let alone = VmConfig::builder().kernel("k").scratch("s");
        assert!(matches!(alone.build(), Err(Error::ScratchAlone)));
    }

    #[test]
    fn a_scratch_disk_is_big_enough_and_has_a_name() {
        let root = || VmConfig::builder().kernel("k").root("r");
        let size = |bytes| Memory::from_bytes(bytes);
        let nameless = root().scratch_size(size(1 << 30)).build().unwrap_err();
        assert!(matches!(nameless, Error::ScratchSizeAlone), "{nameless}");
        for bytes in [0, 1, 1 << 20] {
            let small = root().scratch("s").scratch_size(size(bytes)).build();
            let error = small.unwrap_err().to_string();
            assert!(error.ends_with("2 MiB is the least"), "{error}");
        }
        root()
            .scratch("s")
            .scratch_size(size(2 << 20))
            .build()
            .unwrap();
    }

    #[test]
    fn command_lines_are_one_line() {
        for (text, what) in [
            ("a\0b", "NUL"),
            ("a\nb", "line break"),
            ("a\x1bb", "control"),
            ("a=\"b c", "quote that nothing closes"),
        ] {
            let error = VmConfig::builder()
                .kernel("k")
                .cmdline(text)
                .build()
                .unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
