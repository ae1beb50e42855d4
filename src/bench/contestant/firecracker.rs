//! Firecracker, by a configuration file instead of its API.

use super::vmm::{Dialect, Entry, Parts, words};
use serde_json::json;

/// How it is installed.
pub(super) const INSTALL: &str =
    "a release of github.com/firecracker-microvm/firecracker into PATH";

/// How Firecracker is asked.
pub(super) const DIALECT: Dialect = Dialect {
    metal: Entry {
        name: "firecracker-metal",
        about: "Firecracker with a guest without a kernel; killed once it is ready",
    },
    linux: Entry {
        name: "firecracker-linux",
        about: "Firecracker with Linux, 128 MiB, 1 vCPU; killed once it is ready",
    },
    program: "firecracker",
    version: "--version",
    install: INSTALL,
    // Its log goes to standard output, too, in the midst of the guest's lines.
    arguments: |parts| {
        let file = parts.file.clone().into();
        let mut argv = words(["--no-api", "--log-path", "/dev/null", "--config-file"]);
        argv.push(file);
        argv
    },
    settings: |parts| Some(settings(parts)),
};

fn settings(parts: &Parts) -> String {
    let mut boot = json!({"kernel_image_path": parts.kernel});
    if let Some((initramfs, cmdline)) = &parts.linux {
        boot["initrd_path"] = json!(initramfs);
        boot["boot_args"] = json!(cmdline);
    }
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 128});
    json!({"boot-source": boot, "drives": [], "machine-config": machine}).to_string()
}
