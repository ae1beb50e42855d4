//! Cloud Hypervisor.

use super::Kind;
use super::vmm::{Dialect, Parts, Vmm, words};
use crate::bench::workshop::Programs;
use std::ffi::OsString;

/// With Linux.
pub(super) fn linux(programs: &Programs) -> Vmm {
    let about = "Cloud Hypervisor with Linux, 128 MiB, 1 vCPU; killed once it is ready";
    vmm(programs, Kind::MicroVm, "cloud-hypervisor-linux", about)
}

/// With the bare-metal guest.
pub(super) fn metal(programs: &Programs) -> Vmm {
    let about = "Cloud Hypervisor with a guest without a kernel; killed once it is ready";
    vmm(programs, Kind::BareMetal, "cloud-hypervisor-metal", about)
}

fn vmm(programs: &Programs, kind: Kind, name: &'static str, about: &'static str) -> Vmm {
    let dialect = Dialect {
        name,
        about,
        program: "cloud-hypervisor",
        version: "--version",
        install: "a release of github.com/cloud-hypervisor/cloud-hypervisor into PATH",
        arguments,
        settings: |_| None,
    };
    Vmm::new(programs, kind, dialect)
}

fn arguments(parts: &Parts) -> Vec<OsString> {
    let mut argv = words([
        "--cpus",
        "boot=1",
        "--memory",
        "size=128M",
        "--serial",
        "tty",
        "--console",
        "off",
        "--kernel",
    ]);
    argv.push(parts.kernel.clone().into());
    if let Some((initramfs, cmdline)) = &parts.linux {
        argv.extend(["--initramfs".into(), initramfs.clone().into()]);
        argv.extend(words(["--cmdline", cmdline]));
    }
    argv
}
