//! Cloud Hypervisor.

use super::Kind;
use super::vmm::{Dialect, Parts, Vmm, words};
use crate::bench::workshop::Programs;
use std::ffi::OsString;

/// With Linux.
pub(super) fn linux(programs: &Programs) -> Vmm {
    let dialect = Dialect {
        name: "cloud-hypervisor-linux",
        about: "Cloud Hypervisor with Linux, 128 MiB, 1 vCPU; killed once it is ready",
        program: "cloud-hypervisor",
        install: "a release of github.com/cloud-hypervisor/cloud-hypervisor into PATH",
        arguments,
        settings: |_| None,
    };
    Vmm::new(programs, Kind::MicroVm, dialect)
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
