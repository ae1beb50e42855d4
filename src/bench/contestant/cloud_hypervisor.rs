//! Cloud Hypervisor.

use super::vmm::{Dialect, Entry, Parts, words};
use std::ffi::OsString;

/// How Cloud Hypervisor is asked.
pub(super) const DIALECT: Dialect = Dialect {
    metal: Entry {
        name: "cloud-hypervisor-metal",
        about: "Cloud Hypervisor with a guest without a kernel; killed once it is ready",
    },
    linux: Entry {
        name: "cloud-hypervisor-linux",
        about: "Cloud Hypervisor with Linux, 128 MiB, 1 vCPU; killed once it is ready",
    },
    program: "cloud-hypervisor",
    version: "--version",
    install: "a release of github.com/cloud-hypervisor/cloud-hypervisor into PATH",
    arguments,
    settings: |_| None,
};

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
