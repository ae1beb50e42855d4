//! crosvm.

use super::vmm::{Dialect, Entry, Parts, words};
use std::ffi::OsString;

/// How crosvm is asked.
pub(super) const DIALECT: Dialect = Dialect {
    metal: Entry {
        name: "crosvm-metal",
        about: "crosvm with a guest without a kernel, no sandbox; killed once it is ready",
    },
    linux: Entry {
        name: "crosvm-linux",
        about: "crosvm with Linux, 128 MiB, 1 vCPU, no sandbox; killed once it is ready",
    },
    program: "crosvm",
    version: "version",
    install: "crosvm built from source (crosvm.dev/book/building_crosvm) into PATH",
    arguments,
    settings: |_| None,
};

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
