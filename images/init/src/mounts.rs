//! The kernel's file systems, where user space expects them.

use alloc::format;
use alloc::string::String;
use core::ffi::CStr;

use kvmlet_contract::channel;
use linux_raw_sys::general::{MS_NODEV, MS_NOEXEC, MS_NOSUID};

use crate::sys::{self, Errno};
use crate::{console, layer, place, volume};

/// One of the kernel's file systems and its place.
struct Mount {
    fstype: &'static CStr,
    target: &'static CStr,
    flags: u32,
    options: &'static CStr,
}

const PROC: Mount = Mount {
    fstype: c"proc",
    target: c"/proc",
    flags: MS_NOSUID | MS_NODEV | MS_NOEXEC,
    options: c"",
};

const DEV: Mount = Mount {
    fstype: c"devtmpfs",
    target: c"/dev",
    flags: MS_NOSUID,
    options: c"mode=0755",
};

/// What nothing before the service depends on.
const REST: [Mount; 6] = [
    Mount {
        fstype: c"sysfs",
        target: c"/sys",
        flags: MS_NOSUID | MS_NODEV | MS_NOEXEC,
        options: c"",
    },
    Mount {
        fstype: c"devpts",
        target: c"/dev/pts",
        flags: MS_NOSUID | MS_NOEXEC,
        options: c"gid=5,mode=0620,ptmxmode=0666",
    },
    Mount {
        fstype: c"tmpfs",
        target: c"/dev/shm",
        flags: MS_NOSUID | MS_NODEV,
        options: c"mode=1777",
    },
    Mount {
        fstype: c"tmpfs",
        target: c"/run",
        flags: MS_NOSUID | MS_NODEV,
        options: c"mode=0755",
    },
    Mount {
        fstype: c"tmpfs",
        target: c"/tmp",
        flags: MS_NOSUID | MS_NODEV,
        options: c"mode=1777",
    },
    Mount {
        fstype: c"cgroup2",
        target: c"/sys/fs/cgroup",
        flags: MS_NOSUID | MS_NODEV | MS_NOEXEC,
        options: c"",
    },
];

/// Names under `/dev` that programs use and devtmpfs does not have.
const LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

impl Mount {
    /// Mounts it, making the directory first where it is missing and can be made.
    fn mount(&self) -> Result<(), Errno> {
        let mount =
            |target: &CStr| sys::mount(self.fstype, target, self.fstype, self.flags, self.options);
        match mount(self.target) {
            // There is nothing, or a link to where there is nothing.
            Err(Errno::ENOENT) => {
                let place = place::open_made(self.target)?;
                match mount(&place.proc_path()) {
                    // There is no /proc yet, and nothing in an initramfs that leads elsewhere.
                    Err(Errno::ENOENT) => mount(self.target),
                    other => other,
                }
            }
            // It is there already.
            Err(Errno::EBUSY) => Ok(()),
            other => other,
        }
    }

    fn failed(&self, error: Errno) -> String {
        format!(
            "mount {} on {}: {error}",
            self.fstype.to_string_lossy(),
            self.target.to_string_lossy()
        )
    }
}

/// Mounts `/proc` and `/dev`, which init itself needs.
pub fn early() -> Result<(), String> {
    for mount in [&PROC, &DEV] {
        // The kernel itself can have mounted /dev (CONFIG_DEVTMPFS_MOUNT), and whoever runs init
        // in a container, as the tests do, both.
        if !sys::is_mount_point(mount.target) {
            mount.mount().map_err(|e| mount.failed(e))?;
        }
    }
    Ok(())
}

/// Mounts all the others. A service may do without any of them, so a failure is said and then
/// lived with; what the kernel does not have is not even said.
pub fn rest() {
    for mount in &REST {
        match mount.mount() {
            Ok(()) | Err(Errno::ENODEV) => {}
            // The root, or a sysfs without control groups, has no place for it.
            Err(Errno::EROFS | Errno::EPERM) if mount.fstype == c"cgroup2" => {}
            Err(error) => console::say(format_args!("cannot {}", mount.failed(error))),
        }
    }
    for (target, link) in LINKS {
        // It fails where the image has them.
        let _ = sys::symlink(target, link);
    }
}

/// Mounts what the service asks for. Places that the image lacks are made, on a root that is read-only as well.
pub fn mount_asked(mount: &channel::Mount<'_>) -> Result<(), String> {
    let target = mount.target.to_string_lossy();
    if !mount.target.to_bytes().iter().any(|byte| *byte != b'/') {
        return Err("mount something over the root".into());
    }
    let place = layer::change(|| place::open_made(mount.target))
        .map_err(|e| format!("make a place for the mount on {target}: {e}"))?;
    if let Some(serial) = mount.serial() {
        return volume::mount(mount, serial, &place);
    }
    let path = place.proc_path();
    sys::mount(
        mount.source,
        &path,
        mount.fstype,
        mount.flags,
        mount.options,
    )
    .map_err(|e| {
        let source = mount.source.to_string_lossy();
        format!("mount {source} on {target}: {e}")
    })
}
