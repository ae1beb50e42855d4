//! QEMU's `microvm` machine.

use super::vmm::{Dialect, Entry, Parts, words};
use std::ffi::OsString;

/// How QEMU is asked.
pub(super) const DIALECT: Dialect = Dialect {
    metal: Entry {
        name: "qemu-metal",
        about: "QEMU, machine microvm, with a guest without a kernel; killed once it is ready",
    },
    linux: Entry {
        name: "qemu-linux",
        about: "QEMU, machine microvm, with Linux, 128 MiB, 1 vCPU; killed once it is ready",
    },
    program: "qemu-system-x86_64",
    version: "--version",
    install: "apt-get install qemu-system-x86 (Debian, Ubuntu), dnf install qemu-system-x86-core (Fedora)",
    arguments,
    settings: |_| None,
};

fn arguments(parts: &Parts) -> Vec<OsString> {
    // What a KVM that interprets cannot set (an MSR), or cannot run (cmpxchg16b), is left out.
    let cpu = match parts.interpreted {
        true => "host,-arch-capabilities,-cx16",
        false => "host",
    };
    let mut argv = words([
        "-M",
        "microvm,pic=off,pit=off,rtc=off,isa-serial=on",
        "-accel",
        "kvm",
        "-cpu",
        cpu,
        "-m",
        "128M",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-kernel",
    ]);
    argv.push(parts.kernel.clone().into());
    if let Some((initramfs, cmdline)) = &parts.linux {
        argv.extend(["-initrd".into(), initramfs.clone().into()]);
        argv.extend(words(["-append", cmdline]));
    }
    argv
}
