//! The kernel's file systems, where user space expects them.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use core::ffi::CStr;

use kvmlet_contract::channel;
use linux_raw_sys::general::{MS_NODEV, MS_NOEXEC, MS_NOSUID};

use crate::console;
use crate::sys::{self, Errno};

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
        let mount = || {
            sys::mount(
                self.fstype,
                self.target,
                self.fstype,
                self.flags,
                self.options,
            )
        };
        match mount() {
            Err(Errno::ENOENT) => {
                make_directories(self.target)?;
                mount()
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

/// Makes a directory, and those above it that are missing.
pub fn make_directories(path: &CStr) -> Result<(), Errno> {
    let bytes = path.to_bytes();
    let slashes = (1..bytes.len()).filter(|at| bytes[*at] == b'/');
    let mut result = Ok(());
    for end in slashes.chain([bytes.len()]) {
        let above = CString::new(&bytes[..end]).unwrap_or_default();
        result = match sys::mkdir(&above, 0o755) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        };
    }
    result
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

/// Mounts what the service asks for, where directories may have to be made first.
pub fn mount_asked(mount: &channel::Mount<'_>) -> Result<(), String> {
    let target = mount.target;
    make_directories(target)
        .and_then(|()| {
            sys::mount(
                mount.source,
                target,
                mount.fstype,
                mount.flags,
                mount.options,
            )
        })
        .map_err(|e| {
            let (source, target) = (mount.source.to_string_lossy(), target.to_string_lossy());
            format!("mount {source} on {target}: {e}")
        })
}
