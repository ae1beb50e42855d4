//! crosvm.

use super::Kind;
use super::vmm::{Dialect, Parts, Vmm, words};
use crate::bench::workshop::Programs;
use std::ffi::OsString;

/// With Linux.
pub(super) fn linux(programs: &Programs) -> Vmm {
    let dialect = Dialect {
        name: "crosvm-linux",
        about: "crosvm with Linux, 128 MiB, 1 vCPU, no sandbox; killed once it is ready",
        program: "crosvm",
        install: "crosvm built from source (crosvm.dev/book/building_crosvm) into PATH",
        arguments,
        settings: |_| None,
    };
    Vmm::new(programs, Kind::MicroVm, dialect)
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
