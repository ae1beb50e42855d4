//! Opening `/dev/kvm` and knowing what stands behind it.

use kvm_ioctls::Kvm;
use std::io;

/// The device that every VM begins with.
pub const DEVICE: &str = "/dev/kvm";

/// The one stable version of the KVM API (Linux Documentation/virt/kvm/api.rst §4.1).
const API_VERSION: i32 = 12;

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such device.
    #[error("{DEVICE} does not exist")]
    Absent,
    /// The device is there but not for this user.
    #[error("no permission to open {DEVICE}")]
    Denied,
    /// Anything else that `open` says.
    #[error("cannot open {DEVICE}")]
    Open(#[source] io::Error),
    /// A KVM of another age.
    #[error("{DEVICE} speaks KVM API version {0}, not {API_VERSION}")]
    Version(i32),
}

impl Error {
    /// What a person can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Error::Absent => {
                "load the module (`modprobe kvm_intel` or `kvm_amd`) and switch virtualization on in the \
                 firmware; inside a VM, the outer hypervisor must offer nested virtualization"
            }
            Error::Denied => {
                "join the `kvm` group (`sudo usermod -aG kvm $USER`, then log in again)"
            }
            Error::Open(_) | Error::Version(_) => {
                "run `kvmlet doctor` to see what this host offers"
            }
        }
    }
}

/// Opens `/dev/kvm` and checks its API version.
///
/// # Errors
/// Each way in which KVM may be missing is a variant of its own, with a [help](Error::help) text.
pub fn open() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|errno| match errno.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::Absent,
        libc::EACCES | libc::EPERM => Error::Denied,
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
    }

    #[test]
    fn every_error_has_a_way_out() {
        for error in [Error::Absent, Error::Denied, Error::Version(1)] {
            assert!(!error.help().is_empty(), "{error}");
        }
    }
}
