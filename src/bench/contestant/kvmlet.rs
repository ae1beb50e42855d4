//! kvmlet itself: a bare-metal guest, which shows the VMM's own share, and Linux.

use super::linux::Guest;
use super::{Contestant, Kind, Presence, Service};
use crate::launch::Launch;
use crate::workshop::Programs;
use kvmlet_spec::CpuQuota;
use kvmlet_sys::kvm;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// kvmlet's version, if this host has a KVM.
pub(super) fn probe() -> Presence {
    match kvm::open() {
        Ok(_) => Presence::Present {
            version: concat!("kvmlet ", env!("CARGO_PKG_VERSION")).into(),
        },
        Err(error) => Presence::Unusable {
            message: format!("{error}; {}", error.help()),
        },
    }
}

/// The same, if these guests were built.
pub(super) fn probe_with(guests: &[&Path]) -> Presence {
    match guests.iter().find(|guest| !guest.exists()) {
        None => probe(),
        Some(guest) => Presence::Unusable {
            message: format!("there is no `{}`: images/build bench", guest.display()),
        },
    }
}

/// A host that cannot confine makes the start fail, instead of a start that does less.
pub(super) fn jail_flag(jailed: bool) -> &'static str {
    if jailed { "--jail" } else { "--no-jail" }
}

/// `kvmlet boot` with a guest that is nothing but the service.
pub(super) struct Metal {
    jailed: bool,
    kvmlet: PathBuf,
    ends: PathBuf,
    stays: PathBuf,
    condition: Condition,
}

/// What a VM is given beside the usual.
pub(super) enum Condition {
    None,
    /// A network of kvmlet's, with a port at a loopback address.
    Net,
    Share(CpuQuota),
}

impl Metal {
    pub fn new(programs: &Programs, jailed: bool, condition: Condition) -> Self {
        Self {
            jailed,
            condition,
            kvmlet: programs.kvmlet.clone(),
            ends: programs.guest("ready"),
            stays: programs.guest("ready_stay"),
        }
    }
}

impl Contestant for Metal {
    fn name(&self) -> &'static str {
        match (self.jailed, &self.condition) {
            (true, Condition::None) => "kvmlet-metal",
            (false, Condition::None) => "kvmlet-metal-nojail",
            (true, Condition::Net) => "kvmlet-metal-net",
            (false, Condition::Net) => "kvmlet-metal-nojail-net",
            (true, Condition::Share(_)) => "kvmlet-metal-quota",
            (false, Condition::Share(_)) => "kvmlet-metal-nojail-quota",
        }
    }

    fn about(&self) -> &'static str {
        match self.jailed {
            _ if matches!(self.condition, Condition::Net) => {
                "the same with a network that kvmlet makes and takes down, and a published port"
            }
            _ if matches!(self.condition, Condition::Share(_)) => "the same with a share of CPUs",
            true => {
                "kvmlet boot of a guest without a kernel, 128 MiB, 1 vCPU, a serial port, in a jail: the VMM's own share"
            }
            false => {
                "kvmlet boot of a guest without a kernel, 128 MiB, 1 vCPU, a serial port, without a jail"
            }
        }
    }

    fn kind(&self) -> Kind {
        Kind::BareMetal
    }

    fn probe(&self) -> Presence {
        probe()
    }

    fn launch(&self, _number: usize, service: Service) -> Result<Launch, String> {
        let guest = if service == Service::Ends {
            &self.ends
        } else {
            &self.stays
        };
        let words = [
            self.kvmlet.as_os_str(),
            OsStr::new("boot"),
            OsStr::new(jail_flag(self.jailed)),
            // The serial port is all that the other VMMs' guests have.
            OsStr::new("--no-rng"),
            OsStr::new("--kernel"),
            guest.as_os_str(),
        ];
        let mut argv = words.map(OsString::from).to_vec();
        argv.extend(match self.condition {
            Condition::None => vec![],
            Condition::Net => ["--net", "-p", "127.0.0.1::8080"]
                .map(OsString::from)
                .to_vec(),
            Condition::Share(quota) => {
                let milli = quota.milli();
                let share = format!("{}.{:03}", milli / 1000, milli % 1000);
                vec!["--cpu-quota".into(), share.into()]
            }
        });
        Ok(Launch::new(argv))
    }
}

/// `kvmlet boot` with Linux, kvmlet's init, and the service as a program in the guest.
pub(super) struct Linux {
    jailed: bool,
    kvmlet: PathBuf,
    guest: Guest,
}

impl Linux {
    pub fn new(programs: &Programs, jailed: bool) -> Self {
        Self {
            jailed,
            kvmlet: programs.kvmlet.clone(),
            guest: Guest::new(programs),
        }
    }
}

impl Contestant for Linux {
    fn name(&self) -> &'static str {
        match self.jailed {
            true => "kvmlet-linux",
            false => "kvmlet-linux-nojail",
        }
    }

    fn about(&self) -> &'static str {
        match self.jailed {
            true => "kvmlet boot of Linux, 128 MiB, 1 vCPU, a serial port, in a jail",
            false => "kvmlet boot of Linux, 128 MiB, 1 vCPU, a serial port, without a jail",
        }
    }

    fn kind(&self) -> Kind {
        Kind::MicroVm
    }

    fn probe(&self) -> Presence {
        match self.guest.missing() {
            Some(message) => Presence::Unusable { message },
            None => probe(),
        }
    }

    fn launch(&self, _number: usize, service: Service) -> Result<Launch, String> {
        let kernel = self
            .guest
            .kernel
            .clone()
            .ok_or("there is no guest kernel")?;
        let words: [OsString; 10] = [
            self.kvmlet.clone().into(),
            "boot".into(),
            jail_flag(self.jailed).into(),
            "--no-rng".into(),
            "--kernel".into(),
            kernel.into(),
            "--initrd".into(),
            self.guest.initramfs.clone().into(),
            "--cmdline".into(),
            Guest::cmdline(service).into(),
        ];
        Ok(Launch::new(words))
    }
}
