//! An empty root.

use super::check;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{chroot, fchdir};
use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::ptr::null;

/// Leaves the host's root for an empty one: a tmpfs that holds nothing and takes nothing. The caller has a
/// mount namespace of its own, and holds no open directory, from which the way back would be open.
pub(super) fn leave() -> io::Result<()> {
    match replace() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            log::debug!("jail: the root is no mount that can be taken away: {error}");
            detach()
        }
        result => result,
    }
}

/// Takes the old root away.
fn replace() -> io::Result<()> {
    // What is mounted and unmounted from here on is no business of the host's.
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    // Any directory will do; this one is everywhere.
    let place = c"/proc";
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let options = Some(c"size=4k,nr_inodes=1,mode=555");
    mount(Some(c"jail"), place, Some(c"tmpfs"), flags, options)?;
    // SAFETY: each takes strings that end with a zero.
    unsafe {
        check(libc::chdir(place.as_ptr()).into())?;
        // The same place for both: the old root is stacked upon the new one, with nothing in between
        // (pivot_root(2), NOTES), from where it is taken away.
        let here = c".".as_ptr();
        check(libc::syscall(libc::SYS_pivot_root, here, here))?;
        check(libc::umount2(here, libc::MNT_DETACH).into())?;
        check(libc::chdir(c"/".as_ptr()).into())?;
    }
    Ok(())
}

/// Makes a root of a tmpfs that is mounted nowhere. So a root is left that cannot be taken away, because it is an
/// initramfs, or a directory that `chroot` made one. The old one stays in the namespace, where nothing leads to it.
fn detach() -> io::Result<()> {
    let files = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "4k"), ("nr_inodes", "1"), ("mode", "555")] {
        fsconfig_set_string(files.as_fd(), key, value)?;
    }
    fsconfig_create(files.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(files.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    fchdir(&root)?;
    Ok(chroot(".")?)
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: strings that end with a zero, or null where mount(2) allows it.
    let result = unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(options).cast(),
        )
    };
    check(result.into()).map(drop)
}
