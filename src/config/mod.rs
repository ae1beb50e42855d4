//! What a user asks for: plain types, checked once, no I/O.
//!
//! A [`VmConfig`] comes from the builder or from JSON and is complete when it exists: sizes, counts and
//! names in it are in range. What depends on the host (does the file exist, has the machine that much
//! memory?) is found out by [`Vm::new`](crate::Vm::new).

mod cpu_mask;
mod disk;
mod flag;
mod json;
mod memory;
mod net;
mod port_mapping;
mod rate_limit;

pub use cpu_mask::CpuMask;
pub(crate) use cpu_mask::Register;
pub use disk::{Cache, Disk, DiskIo, QueueCount, Serial};
pub use memory::{HugePages, Memory, MemorySize};
pub use net::{MacAddress, Mtu, Net, QueuePairs, Subnet};
pub use port_mapping::{PortMapping, Protocol};
pub use rate_limit::{Rate, RateLimit};

pub use kvmlet_init::{GuestSpec, Overlay, RootSpec, ServiceSpec};

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The kernel command line that is used when the user gives none.
///
/// `reboot=k` makes a reboot a keyboard-controller reset, which the VMM sees at once; `panic=-1` makes a
/// panic reboot without delay (Linux Documentation/admin-guide/kernel-parameters.txt). kvmlet's own kernels are
/// built with `quiet`; `loglevel=7` brings their messages back.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 loglevel=7";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No kernel was named.
    #[error("no guest kernel is named")]
    KernelMissing,
    /// A memory size that does not parse.
    #[error("`{text}` is not a memory size (write a number with a unit, such as 512M or 2G)")]
    MemorySyntax {
        /// What the user wrote.
        text: String,
    },
    /// A memory size outside the limits.
    #[error(
        "{size} of guest memory is outside the limits: {} to {}",
        Memory::MIN,
        Memory::MAX
    )]
    MemoryRange {
        /// The size asked for.
        size: Memory,
    },
    /// A memory size that is not made of whole pages.
    #[error("{bytes} bytes of guest memory is not a multiple of the page size, {page} bytes")]
    MemoryAlignment {
        /// The size asked for, in bytes.
        bytes: u64,
        /// The page size that applies, in bytes.
        page: u64,
    },
    /// A vCPU count outside the limits.
    #[error("{count} vCPUs is outside the limits: 1 to {}", VcpuCount::MAX)]
    VcpuRange {
        /// The count asked for.
        count: u64,
    },
    /// A CPUID bit that is not known by that name.
    #[error("`{name}` is not a CPUID bit that can be masked{}", did_you_mean(.nearest))]
    CpuMaskName {
        /// What the user wrote.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// A command line that cannot be passed to a kernel.
    #[error("the kernel command line contains a {what}")]
    CmdlineCharacter {
        /// What kind of character was found.
        what: &'static str,
    },
    /// Addresses for a tap that is not kvmlet's.
    #[error(
        "`{key}` is for interfaces that kvmlet makes; who makes the tap sets it up (leave out `tap`)"
    )]
    NetTapOwned {
        /// The key that does not go with `tap`.
        key: &'static str,
    },
    /// A hardware address that no interface can have.
    #[error("`{text}` is not the hardware address of an interface (such as 02:00:00:12:34:56)")]
    MacAddress {
        /// What the user wrote.
        text: String,
    },
    /// An MTU outside the limits.
    #[error("{bytes} bytes is outside the limits of an MTU: 68 to 65521")]
    MtuRange {
        /// What the user wrote.
        bytes: u64,
    },
    /// A number of queue pairs outside the limits.
    #[error("{count} queue pairs is outside the limits: 1 to {}", QueuePairs::MAX)]
    QueuePairs {
        /// The count asked for.
        count: u64,
    },
    /// A network that is none, or has no room for host and guest.
    #[error("`{text}` is not an IPv4 network for host and guest (such as 10.1.2.0/30)")]
    Subnet {
        /// What the user wrote.
        text: String,
    },
    /// A published port that does not parse.
    #[error("`{text}` does not publish a port: {why} (write [ADDRESS:]HOST:GUEST[/tcp|udp])")]
    PortMapping {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A scratch disk without a root to lay it over.
    #[error("a scratch disk keeps the changes of a root, and no root is named")]
    ScratchAlone,
    /// An environment variable without a name, or with `=` in it.
    #[error("`{name}` is not the name of an environment variable")]
    EnvName {
        /// What the user wrote.
        name: String,
    },
    /// A key that is not known.
    #[error("unknown key `{key}`{} (line {line}, column {column})", did_you_mean(.nearest))]
    UnknownKey {
        /// The key in the file.
        key: String,
        /// The nearest known key.
        nearest: Option<String>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A key that a flag does not have.
    #[error("{flag} has no key `{key}`{}", did_you_mean(.nearest))]
    FlagKey {
        /// The flag.
        flag: &'static str,
        /// What the user wrote.
        key: String,
        /// The nearest known key.
        nearest: Option<String>,
    },
    /// A key that stands more than once in a flag.
    #[error("{flag} has `{key}` twice")]
    FlagTwice {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: String,
    },
    /// A value that a key of a flag cannot have.
    #[error("`{key}` of {flag} {}, not {expected}", has_or_is(.value))]
    FlagValue {
        /// The flag.
        flag: &'static str,
        /// The key.
        key: &'static str,
        /// What the user wrote; empty if nothing.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A disk without a file.
    #[error("a disk has no file: add `path=FILE`")]
    DiskPathMissing,
    /// A serial number that a disk cannot have.
    #[error(
        "`{text}` cannot be the serial number of a disk: those are 1 to {} printable ASCII characters",
        Serial::MAX_BYTES
    )]
    DiskSerial {
        /// What the user wrote.
        text: String,
    },
    /// A number of queues outside the limits.
    #[error(
        "{count} queues of a disk is outside the limits: 1 to {}",
        QueueCount::MAX
    )]
    DiskQueues {
        /// The count asked for.
        count: u64,
    },
    /// A rate limit that lets nothing through.
    #[error("a rate of zero would stop the device; leave the limit away for no limit")]
    RateZero,
    /// A burst to go with no rate.
    #[error("a burst limits nothing without a rate; add `{of}`")]
    BurstWithoutRate {
        /// The key that is missing.
        of: &'static str,
    },
    /// JSON that does not parse, or a value of the wrong type.
    #[error("{0}")]
    Json(String),
}

fn did_you_mean(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

fn has_or_is(value: &str) -> String {
    match value {
        "" => "has no value".into(),
        value => format!("is `{value}`"),
    }
}

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
#[derive(Clone, Debug)]
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
    /// The disks, in the order in which the guest names them: the root's first, if there is one.
    pub disks: Vec<Disk>,
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
}

/// A configuration under construction; every field is optional until [`build`](Self::build).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmConfigBuilder {
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    cmdline: Option<String>,
    memory: Option<Memory>,
    huge_pages: HugePages,
    prefault: bool,
    vcpus: Option<u64>,
    cpu_mask: CpuMask,
    root: Option<PathBuf>,
    scratch: Option<PathBuf>,
    disks: Vec<Disk>,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    workdir: Option<String>,
    hostname: Option<String>,
}

impl VmConfigBuilder {
    /// Reads the given keys from JSON text; the others keep their defaults.
    ///
    /// # Errors
    /// Unknown keys are refused with the nearest known one, and so are values of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        json::parse(text)
    }

    /// The guest kernel: an ELF `vmlinux` or a bzImage.
    pub fn kernel(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernel = Some(path.into());
        self
    }

    /// The kernel that was named so far.
    pub fn has_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// The initial RAM disk.
    pub fn initrd(mut self, path: impl Into<PathBuf>) -> Self {
        self.initrd = Some(path.into());
        self
    }

    /// Whether an initial RAM disk was named so far.
    pub fn has_initrd(&self) -> bool {
        self.initrd.is_some()
    }

    /// The kernel command line, instead of [`DEFAULT_CMDLINE`].
    pub fn cmdline(mut self, text: impl Into<String>) -> Self {
        self.cmdline = Some(text.into());
        self
    }

    /// Guest RAM.
    pub fn memory(mut self, size: Memory) -> Self {
        self.memory = Some(size);
        self
    }

    /// Which pages back guest RAM.
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.huge_pages = pages;
        self
    }

    /// Touch all guest RAM before the guest starts.
    pub fn prefault(mut self, yes: bool) -> Self {
        self.prefault = yes;
        self
    }

    /// How many vCPUs; checked by [`build`](Self::build).
    pub fn vcpus(mut self, count: u64) -> Self {
        self.vcpus = Some(count);
        self
    }

    /// CPUID bits to hide from the guest.
    pub fn cpu_mask(mut self, mask: CpuMask) -> Self {
        self.cpu_mask = mask;
        self
    }

    /// The image of a root file system (erofs or ext4). VMs share it: it is only read, and what the guest
    /// changes goes to its memory, or to the [scratch](Self::scratch) disk.
    pub fn root(mut self, image: impl Into<PathBuf>) -> Self {
        self.root = Some(image.into());
        self
    }

    /// Whether a root was named so far.
    pub fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// A disk of the VM's own that keeps what the guest changes of its root: an ext4 file system.
    pub fn scratch(mut self, image: impl Into<PathBuf>) -> Self {
        self.scratch = Some(image.into());
        self
    }

    /// One more disk.
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// The service that the guest's init runs, with its arguments, instead of the image's own.
    pub fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable of the service; the last value given to a name counts.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The directory in which the service starts.
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// The guest's host name.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Checks everything that can be checked without looking at the host.
    ///
    /// # Errors
    /// The first value that cannot work, by name, with its limits.
    pub fn build(self) -> Result<VmConfig, Error> {
        let memory = self.memory.unwrap_or(Memory::DEFAULT);
        memory.check(self.huge_pages)?;
        let cmdline = self.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.into());
        check_cmdline(&cmdline)?;
        if let Some(name) = self
            .env
            .keys()
            .find(|name| name.is_empty() || name.contains('='))
        {
            return Err(Error::EnvName { name: name.clone() });
        }
        let (root, mut disks) = root_disks(self.root, self.scratch)?;
        disks.extend(self.disks);
        let service = ServiceSpec {
            command: self.command,
            env: self.env.into_iter().collect(),
            workdir: self.workdir,
            user: None,
        };
        Ok(VmConfig {
            kernel: self.kernel.ok_or(Error::KernelMissing)?,
            initrd: self.initrd,
            cmdline,
            memory,
            huge_pages: self.huge_pages,
            prefault: self.prefault,
            vcpus: self.vcpus.unwrap_or(1).try_into()?,
            cpu_mask: self.cpu_mask,
            disks,
            guest: GuestSpec {
                service,
                hostname: self.hostname,
                root,
                ..Default::default()
            },
        })
    }
}

/// The disks that make a root, and how the guest puts them together.
fn root_disks(
    root: Option<PathBuf>,
    scratch: Option<PathBuf>,
) -> Result<(Option<RootSpec>, Vec<Disk>), Error> {
    let (root, scratch) = match (root, scratch) {
        (None, None) => return Ok((None, Vec::new())),
        (None, Some(_)) => return Err(Error::ScratchAlone),
        (Some(root), scratch) => (Disk::read_only(root), scratch.map(Disk::read_write)),
    };
    let overlay = match &scratch {
        Some(_) => Overlay::Device("/dev/vdb".into()),
        None => Overlay::Tmpfs,
    };
    let spec = RootSpec {
        device: "/dev/vda".into(),
        fstype: None,
        read_only: true,
        overlay: Some(overlay),
    };
    Ok((Some(spec), [root].into_iter().chain(scratch).collect()))
}

/// A kernel command line is one NUL-terminated line; anything else would be cut or misread silently.
fn check_cmdline(text: &str) -> Result<(), Error> {
    let what = match text.chars().find(|c| c.is_control()) {
        None => return Ok(()),
        Some('\0') => "NUL byte",
        Some('\n' | '\r') => "line break",
        Some(_) => "control character",
    };
    Err(Error::CmdlineCharacter { what })
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
        let alone = VmConfig::builder().kernel("k").scratch("s");
        assert!(matches!(alone.build(), Err(Error::ScratchAlone)));
    }

    #[test]
    fn command_lines_are_one_line() {
        for (text, what) in [
            ("a\0b", "NUL"),
            ("a\nb", "line break"),
            ("a\x1bb", "control"),
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
