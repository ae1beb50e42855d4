//! Opening `/dev/kvm` and knowing what stands behind it.

use super::users;
use kvm_ioctls::Kvm;
use std::arch::x86_64::__cpuid;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The device that every VM begins with.
pub const DEVICE: &str = "/dev/kvm";

/// The one stable version of the KVM API (Linux Documentation/virt/kvm/api.rst §4.1).
const API_VERSION: i32 = 12;

/// Where the kernel lists the device as soon as its module is loaded, also for containers that do not have it.
const REGISTERED: &str = "/sys/class/misc/kvm";

/// What stands for all users and groups that a user namespace does not have (`/proc/sys/kernel/overflowuid`).
const UNMAPPED: u32 = 65534;

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such device.
    #[error("{DEVICE} does not exist")]
    Absent(Absence),
    /// The device's mode does not let this user open it.
    #[error("no permission to open {DEVICE}")]
    Denied(Denial),
    /// Something other than the device's mode forbids it.
    #[error("opening {DEVICE} is forbidden here, whoever asks")]
    Forbidden,
    /// Anything else that `open` says.
    #[error("cannot open {DEVICE}")]
    Open(#[source] io::Error),
    /// A KVM of another age.
    #[error("{DEVICE} speaks KVM API version {0}, not {API_VERSION}")]
    Version(i32),
}

/// What a host without the device lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The host has it; this container has not.
    OfNode,
    /// The processor can, and nobody has loaded the module.
    OfModule,
    /// The processor does not offer virtualization.
    OfExtensions,
}

/// Who may open the device, and how far this user is from that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The name of the device's group, or its number; none where a user namespace hides it.
    group: Option<String>,
    /// Does the group get to read and write?
    group_may: bool,
    /// Does /etc/group list this user there? Then this process is older than that.
    is_listed: bool,
}

impl Absence {
    fn find() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        match Execution::from_cpuinfo(&cpuinfo) {
            _ if Path::new(REGISTERED).exists() => Self::OfNode,
            Execution::Hardware => Self::OfModule,
            Execution::Interpreted => Self::OfExtensions,
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::OfNode => {
                "the host has it, and this container was not given it: start that with the device \
                 (`docker run --device /dev/kvm`, `podman run --device /dev/kvm`)"
            }
            Self::OfModule => "load the module: `modprobe kvm_intel` or `modprobe kvm_amd`",
            Self::OfExtensions => {
                "the processor shows neither VT-x nor SVM: switch virtualization on in the firmware; inside a VM, the \
                 outer hypervisor must offer nested virtualization"
            }
        }
    }
}

impl Denial {
    fn help(&self) -> String {
        let Some(group) = &self.group else {
            return format!(
                "join the device's group, which `stat -c %G {DEVICE}` tells, then log in again"
            );
        };
        if !self.group_may || group == "root" {
            return format!(
                "{DEVICE} is open to no group that users are in: as root, `chgrp kvm {DEVICE} && chmod g+rw {DEVICE}`, \
                 then `usermod -aG kvm USER`"
            );
        }
        match self.is_listed {
            true => format!(
                "this user is in the device's group `{group}`, but this session is older than that: log in again, \
                 or `newgrp {group}`"
            ),
            false => format!(
                "join the device's group: `sudo usermod -aG {group} $USER`, then log in again"
            ),
        }
    }
}

impl Error {
    /// What a person can do about it.
    pub fn help(&self) -> String {
        match self {
            Error::Absent(absence) => absence.help().into(),
            Error::Denied(denial) => denial.help(),
            Error::Forbidden => {
                "its mode would allow it, so a container's device rules (a devices cgroup) or a security module \
                 (AppArmor, SELinux) do not: give the container the device (`docker run --device /dev/kvm`)"
                    .into()
            }
            Error::Open(_) | Error::Version(_) => {
                "run `kvmlet doctor` to see what this host offers".into()
            }
        }
    }

    /// What stands behind a refusal.
    fn refused(errno: i32) -> Self {
        let Ok(device) = std::fs::metadata(DEVICE) else {
            return Self::Open(io::Error::from_raw_os_error(errno));
        };
        let user = rustix::process::geteuid().as_raw();
        let mut groups = rustix::process::getgroups().unwrap_or_default();
        groups.push(rustix::process::getegid());
        let groups: Vec<u32> = groups.into_iter().map(|group| group.as_raw()).collect();
        let owner = (device.uid(), device.gid());
        // A devices cgroup answers EPERM, a security module EACCES as a mode does.
        if errno == libc::EPERM || may_open(device.mode(), owner, user, &groups) {
            return Self::Forbidden;
        }
        let named = |group| users::group_name(group).unwrap_or_else(|| group.to_string());
        Self::Denied(Denial {
            group: Some(device.gid())
                .filter(|group| *group != UNMAPPED)
                .map(named),
            group_may: device.mode() & 0o060 == 0o060,
            is_listed: users::is_listed(user, device.gid()),
        })
    }
}

/// Does a mode let a user with these groups read and write? The first of owner, group and others that fits decides.
fn may_open(mode: u32, (owner, group): (u32, u32), user: u32, groups: &[u32]) -> bool {
    let bits = match () {
        () if user == owner && user != UNMAPPED => mode >> 6,
        () if groups.contains(&group) && group != UNMAPPED => mode >> 3,
        () => mode,
    };
    bits & 0o6 == 0o6
}

/// Opens `/dev/kvm` and checks its API version.
///
/// # Errors
/// Each way in which KVM may be missing is a variant of its own, with a [help](Error::help) text.
pub fn open() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|errno| match errno.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::Absent(Absence::find()),
        refusal @ (libc::EACCES | libc::EPERM) => Error::refused(refusal),
        _ => Error::Open(errno.into()),
    })?;
    match kvm.get_api_version() {
        API_VERSION => Ok(kvm),
        other => Err(Error::Version(other)),
    }
}

/// How the host runs guest kernel code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// By the processor's virtualization extensions (VT-x, SVM).
    Hardware,
    /// By KVM's instruction emulator: right, but about a thousand times slower in supervisor mode.
    Interpreted,
}

impl Execution {
    /// Reads it off the CPU's flags: a KVM that works on a processor without `vmx` or `svm` interprets.
    ///
    /// # Errors
    /// When `/proc/cpuinfo` cannot be read.
    pub fn detect() -> io::Result<Self> {
        Ok(Self::from_cpuinfo(&std::fs::read_to_string(
            "/proc/cpuinfo",
        )?))
    }

    /// Asks the processor itself, without a system call. Firmware that has locked VT-x or SVM does not show here.
    pub fn of_processor() -> Self {
        // Intel SDM vol. 2A, CPUID, leaf 1, ECX bit 5; AMD APM vol. 3, E.4.2, leaf 8000_0001h, ECX bit 2.
        let vmx = __cpuid(1).ecx & 1 << 5;
        let svm = match __cpuid(0x8000_0000).eax {
            0x8000_0001.. => __cpuid(0x8000_0001).ecx & 1 << 2,
            _ => 0,
        };
        match vmx | svm {
            0 => Execution::Interpreted,
            _ => Execution::Hardware,
        }
    }

    fn from_cpuinfo(text: &str) -> Self {
        let flags = text
            .lines()
            .find(|line| line.starts_with("flags"))
            .unwrap_or_default();
        if flags
            .split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
        {
            Execution::Hardware
        } else {
            Execution::Interpreted
        }
    }

    /// The flavour of guest kernel (see `kernels/build`) that boots on such a host.
    pub fn kernel_flavour(self) -> &'static str {
        match self {
            Execution::Hardware => "microvm",
            Execution::Interpreted => "software-kvm",
        }
    }
}

/// Which processor this host has: whose, which, and what it can.
pub fn processor() -> String {
    // The first of leaf 1 is family, model and stepping; the second is about the CPU that this runs on.
    let [vendor, model, features] = [0, 1, 7].map(__cpuid);
    let numbers = [
        vendor.ebx,
        vendor.edx,
        vendor.ecx,
        model.eax,
        model.ecx,
        model.edx,
        features.ebx,
        features.ecx,
        features.edx,
    ];
    numbers.map(|number| format!("{number:08x}")).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_tell_hardware_from_interpretation() {
        let hardware = "processor : 0\nflags\t\t: fpu vme svm sse\n";
        assert_eq!(Execution::from_cpuinfo(hardware), Execution::Hardware);
        assert_eq!(
            Execution::from_cpuinfo("flags : fpu vmx\n"),
            Execution::Hardware
        );
        assert_eq!(
            Execution::from_cpuinfo("flags : fpu vmxish\n"),
            Execution::Interpreted
        );
        assert_eq!(Execution::from_cpuinfo(""), Execution::Interpreted);
        // No firmware of a host with KVM has locked it.
        if Path::new(DEVICE).exists() {
            assert_eq!(Execution::of_processor(), Execution::detect().unwrap());
        }
    }

    #[test]
    fn modes_decide_by_the_first_that_fits() {
        for (mode, user, groups, expected) in [
            (0o660, 0, &[0][..], true),
            (0o660, 1000, &[1000], false),
            (0o660, 1000, &[1000, 105], true),
            (0o666, 1000, &[1000], true),
            (0o606, 1000, &[105], false),
            (0o600, 1000, &[105], false),
            (0o060, 0, &[105], false),
            (0o660, UNMAPPED, &[UNMAPPED], false),
        ] {
            let owner = if user == UNMAPPED {
                (UNMAPPED, UNMAPPED)
            } else {
                (0, 105)
            };
            let may = may_open(mode, owner, user, groups);
            assert_eq!(may, expected, "{mode:o} {user} {groups:?}");
        }
    }

    #[test]
    fn the_way_out_is_that_of_the_cause() {
        let denied = |group: &str, group_may, is_listed| {
            Error::Denied(Denial {
                group: Some(group.into()).filter(|group: &String| !group.is_empty()),
                group_may,
                is_listed,
            })
        };
        for (error, expected) in [
            (Error::Absent(Absence::OfNode), "--device /dev/kvm"),
            (Error::Absent(Absence::OfModule), "modprobe kvm_intel"),
            (Error::Absent(Absence::OfExtensions), "firmware"),
            (denied("virt", true, false), "usermod -aG virt"),
            (denied("virt", true, true), "log in again, or `newgrp virt`"),
            (denied("4711", true, false), "usermod -aG 4711"),
            (denied("root", true, false), "chgrp kvm"),
            (denied("kvm", false, true), "chmod g+rw"),
            (denied("", true, false), "stat -c %G /dev/kvm"),
            (Error::Forbidden, "devices cgroup"),
            (Error::Version(1), "kvmlet doctor"),
        ] {
            assert!(error.help().contains(expected), "{error}: {}", error.help());
        }
    }
}
