//! Cloud Hypervisor, whose devices are on a PCI bus.

use super::{Device, Dialect, Machine};
use crate::contestant::{cloud_hypervisor_command, cloud_hypervisor_presence};
use std::ffi::OsString;
use std::io;

/// How it is asked.
pub(super) const DIALECT: Dialect = Dialect {
    probe: cloud_hypervisor_presence,
    disks: &["cloud-hypervisor"],
    direct: true,
    frames: "cloud-hypervisor",
    cmdline: "bus=pci",
    command,
};

fn command(machine: &Machine<'_>) -> io::Result<Vec<OsString>> {
    let mut command = cloud_hypervisor_command(&machine.kernel, &machine.file);
    command.extend(["--cmdline".into(), machine.cmdline.clone().into()]);
    let (flag, value) = match machine.device {
        Device::Disk { path, direct } => {
            let mut value = OsString::from("path=");
            value.push(path);
            value.push(if direct { ",direct=on" } else { ",direct=off" });
            // Otherwise it looks into the disk for what it is, and refuses writes to its beginning.
            value.push(",image_type=raw");
            ("--disk", value)
        }
        Device::Tap(name) => ("--net", format!("tap={name}").into()),
    };
    command.extend([flag.into(), value]);
    Ok(command)
}
