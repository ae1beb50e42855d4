//! Firecracker, with each of its two engines for disks. It knows no way past the page cache.

use super::{Device, Dialect, Machine};
use crate::contestant::{firecracker_command, firecracker_presence};
use serde_json::json;
use std::ffi::OsString;
use std::io;

const SYNC: &str = "firecracker-sync";
const ASYNC: &str = "firecracker-async";

/// How it is asked.
pub(super) const DIALECT: Dialect = Dialect {
    probe: firecracker_presence,
    disks: &[SYNC, ASYNC],
    direct: false,
    frames: "firecracker",
    // Its devices are listed for Linux.
    cmdline: "",
    command,
};

fn command(machine: &Machine<'_>) -> io::Result<Vec<OsString>> {
    let mut settings = json!({
        "boot-source": {"kernel_image_path": machine.kernel, "boot_args": machine.cmdline},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "drives": [],
    });
    match machine.device {
        Device::Disk { path, .. } => {
            let engine = if machine.way == ASYNC {
                "Async"
            } else {
                "Sync"
            };
            settings["drives"] = json!([{
                "drive_id": "disk", "path_on_host": path, "is_root_device": false, "is_read_only": false,
                "cache_type": "Unsafe", "io_engine": engine,
            }]);
        }
        Device::Tap(name) => {
            settings["network-interfaces"] = json!([{"iface_id": "eth0", "host_dev_name": name}]);
        }
    }
    std::fs::write(&machine.file, settings.to_string())?;
    Ok(firecracker_command(&machine.kernel, &machine.file))
}
