//! From the initramfs into the root file system that the host has asked for.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, Ordering};

use kvmlet_contract::{FileSystem, Overlay, RootSpec};
use linux_raw_sys::general::{MS_MOVE, MS_NOATIME, MS_RDONLY, MS_REMOUNT};

use crate::appear;
use crate::sys::{self, Errno, File};

/// The new root, before it is one.
const ROOT: &CStr = c"/root";
/// Under an overlay: the device.
const LOWER: &CStr = c"/lower";
/// Under an overlay: what holds the changes, in `upper` and `work`.
const SCRATCH: &CStr = c"/scratch";

/// The open directory of the overlay's changes, or -1: when the root is one, no path leads there.
static CHANGES: AtomicI32 = AtomicI32::new(-1);

/// A path of the directory that holds what has changed of the root, for a process of the agent's; nothing if the root is no
/// overlay.
pub fn changes() -> Option<CString> {
    let number = CHANGES.load(Ordering::Relaxed);
    let path = (number >= 0).then(|| format!("/proc/1/fd/{number}/."))?;
    CString::new(path).ok()
}

/// Mounts the root, makes it `/` and takes `/proc` and `/dev` along. Returns the mount of the
/// overlay's disk, if there is one.
pub fn enter(spec: &RootSpec) -> Result<Option<File>, String> {
    let scratch = match &spec.overlay {
        None => {
            let holds = mount_device(&spec.device, ROOT, spec.fstype, spec.read_only)?;
            if holds == FileSystem::Erofs || spec.read_only {
                complete(&spec.device)?;
            }
            None
        }
        Some(overlay) => {
            mount_device(&spec.device, LOWER, spec.fstype, true)?;
            mount_overlay(overlay)?
        }
    };
    for (from, to) in [(c"/proc", c"/root/proc"), (c"/dev", c"/root/dev")] {
        carry(from, to).map_err(|e| {
            let name = from.to_string_lossy();
            format!("move {name} into the root on {}: {e}", spec.device)
        })?;
    }
    // As switch_root(8) does, but for freeing the initramfs: it holds little more than init.
    sys::chdir(ROOT)
        .and_then(|()| sys::mount(c".", c"/", c"", MS_MOVE, c""))
        .and_then(|()| sys::chroot(c"."))
        .and_then(|()| sys::chdir(c"/"))
        .map_err(|e| format!("make {} the root: {e}", spec.device))?;
    Ok(scratch)
}

/// Moves a mount into the new root, making its place if the image has none.
fn carry(from: &CStr, to: &CStr) -> Result<(), Errno> {
    match sys::mount(from, to, c"", MS_MOVE, c"") {
        Err(Errno::ENOENT) => {
            sys::mkdir(to, 0o755)?;
            sys::mount(from, to, c"", MS_MOVE, c"")
        }
        other => other,
    }
}

/// Where init mounts something in each root.
const PLACES: [&CStr; 5] = [
    c"/root/proc",
    c"/root/dev",
    c"/root/sys",
    c"/root/run",
    c"/root/tmp",
];

/// Gives a read-only root the directories that it lacks, in a layer over it that is then read-only, too.
fn complete(device: &str) -> Result<(), String> {
    let make = || {
        for place in PLACES {
            match sys::mkdir(place, 0o755) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    if make().is_ok() {
        return Ok(());
    }
    make_scratch_directories(&Overlay::Tmpfs)?;
    let options = c"lowerdir=/root,upperdir=/scratch/upper,workdir=/scratch/work";
    sys::mount(c"overlay", ROOT, c"overlay", 0, options)
        .and_then(|()| make())
        .and_then(|()| sys::mount(c"none", ROOT, c"", MS_REMOUNT | MS_RDONLY, c""))
        .map_err(|e| {
            format!(
                "give the read-only root on {device} the directories that it lacks \
                 (/proc, /dev, /sys, /run, /tmp): {e}"
            )
        })
}

/// Puts the writable layer over [`LOWER`] and mounts both at [`ROOT`].
fn mount_overlay(overlay: &Overlay) -> Result<Option<File>, String> {
    let scratch = make_scratch_directories(overlay)?;
    make_directory(ROOT)?;
    let options = c"lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work";
    sys::mount(c"overlay", ROOT, c"overlay", 0, options)
        .map_err(|e| format!("mount the overlay over the root: {e}"))?;
    // Nobody needs it to run a service.
    if let Ok(upper) = File::open(c"/scratch/upper", sys::O_RDONLY | sys::O_DIRECTORY) {
        CHANGES.store(upper.number(), Ordering::Relaxed);
        core::mem::forget(upper);
    }
    Ok(scratch)
}

/// Mounts what holds an overlay's changes, and makes the directories for them.
fn make_scratch_directories(overlay: &Overlay) -> Result<Option<File>, String> {
    let scratch = match overlay {
        Overlay::Tmpfs => {
            make_directory(SCRATCH)?;
            sys::mount(c"tmpfs", SCRATCH, c"tmpfs", 0, c"mode=0755")
                .map_err(|e| format!("mount a tmpfs for the overlay: {e}"))?;
            None
        }
        Overlay::Device(device) => {
            mount_device(device, SCRATCH, Some(FileSystem::Ext4), false)?;
            let mount = File::open(SCRATCH, sys::O_RDONLY | sys::O_DIRECTORY)
                .map_err(|e| format!("open the overlay's disk {device}: {e}"))?;
            Some(mount)
        }
    };
    for directory in [c"/scratch/upper", c"/scratch/work"] {
        make_directory(directory)?;
    }
    Ok(scratch)
}

/// Mounts a block device, waiting for it to appear, and says what is on it. Without a type, tries
/// those that a root can be on.
fn mount_device(
    device: &str,
    target: &CStr,
    fstype: Option<FileSystem>,
    read_only: bool,
) -> Result<FileSystem, String> {
    make_directory(target)?;
    let source = CString::new(device).unwrap_or_default();
    let candidates = [FileSystem::Erofs, FileSystem::Ext4];
    let candidates = fstype
        .as_ref()
        .map_or(&candidates[..], core::slice::from_ref);
    appear::wait_for(device, || mount_as(&source, target, candidates, read_only))
        .map_err(|error| mount_failed(device, fstype, error))
}

/// Mounts `source` as the first of `candidates` that it turns out to hold.
fn mount_as(
    source: &CStr,
    target: &CStr,
    candidates: &[FileSystem],
    read_only: bool,
) -> Result<FileSystem, Errno> {
    let mut refused = Errno::EINVAL;
    for fstype in candidates {
        let flags = match fstype {
            FileSystem::Erofs => MS_RDONLY,
            FileSystem::Ext4 if read_only => MS_RDONLY,
            // The time of each read is worth no write.
            FileSystem::Ext4 => MS_NOATIME,
        };
        let name = CString::new(fstype.name()).unwrap_or_default();
        match sys::mount(source, target, &name, flags, c"") {
            // Not in this kernel, which is no reason to wait.
            Err(Errno::ENODEV) => refused = Errno::EOPNOTSUPP,
            Err(Errno::EINVAL) => {}
            other => return other.map(|()| *fstype),
        }
    }
    Err(refused)
}

fn mount_failed(device: &str, fstype: Option<FileSystem>, error: Errno) -> String {
    let fstype = fstype.map_or("erofs or ext4", FileSystem::name);
    match error {
        error if appear::is_absent(error) => {
            format!("mount {device}: no such device after 5 s")
        }
        Errno::EINVAL => format!("mount {device}: it does not hold {fstype}"),
        Errno::EOPNOTSUPP => format!("mount {device}: this guest kernel knows no {fstype}"),
        Errno::EACCES | Errno::EROFS => {
            format!("mount {device} as writable {fstype}: the disk is read-only")
        }
        other => format!("mount {device} as {fstype}: {other}"),
    }
}

fn make_directory(path: &CStr) -> Result<(), String> {
    match sys::mkdir(path, 0o755) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(format!("make {}: {error}", path.to_string_lossy())),
    }
}
