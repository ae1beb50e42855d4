//! crosvm.

use super::Kind;
use super::vmm::{Dialect, Parts, Vmm, words};
use crate::bench::workshop::Programs;
use std::ffi::OsString;

/// With Linux.
pub(super) fn linux(programs: &Programs) -> Vmm {
    let about = "crosvm with Linux, 128 MiB, 1 vCPU, no sandbox; killed once it is ready";
    vmm(programs, Kind::MicroVm, "crosvm-linux", about)
}

/// With the bare-metal guest.
pub(super) fn metal(programs: &Programs) -> Vmm {
    let about = "crosvm with a guest without a kernel, no sandbox; killed once it is ready";
    vmm(programs, Kind::BareMetal, "crosvm-metal", about)
}

fn vmm(programs: &Programs, kind: Kind, name: &'static str, about: &'static str) -> Vmm {
    let dialect = Dialect {
        name,
        about,
        program: "crosvm",
        version: "version",
        install: "crosvm built from source (crosvm.dev/book/building_crosvm) into PATH",
        arguments,
        settings: |_| None,
    };
    Vmm::new(programs, kind, dialect)
}

fn arguments(parts: &Parts) -> Vec<OsString> {
    let mut argv = words([
        "run",
        "--disable-sandbox",
        "--cpus",
        "1",
        "--mem",
        "128",
        "--serial",
        "type=stdout,hardware=serial,num=1",
    ]);
    if let Some((initramfs, cmdline)) = &parts.linux {
        argv.extend(["--initrd".into(), initramfs.clone().into()]);
        argv.extend(words(["--params", cmdline]));
    }
    argv.push(parts.kernel.clone().into());
    argv
}
