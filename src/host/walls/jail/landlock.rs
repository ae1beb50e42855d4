//! Landlock (Linux Documentation/userspace-api/landlock.rst): a set of rules that allows nothing, or some paths.

use super::check;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// LANDLOCK_CREATE_RULESET_VERSION (linux/landlock.h).
const VERSION: libc::c_ulong = 1;

/// LANDLOCK_RULE_PATH_BENEATH
const PATH_BENEATH: libc::c_int = 1;
// LANDLOCK_ACCESS_FS_*, as bits.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// LANDLOCK_ACCESS_NET_CONNECT_TCP
const CONNECT: u64 = 1 << 1;

/// What may still be done with a file, or with all that is below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// To read it.
    Read,
    /// To read it, and to execute it.
    Execute,
    /// To read, make, change and remove regular files.
    Change,
}

impl Allowed {
    fn rights(self, is_directory: bool) -> u64 {
        let rights = match self {
            Self::Read => READ_FILE | READ_DIR,
            Self::Execute => READ_FILE | READ_DIR | EXECUTE,
            Self::Change => {
                READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | REFER | TRUNCATE
            }
        };
        match is_directory {
            true => rights,
            false => rights & (EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE),
        }
    }
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    rights: u64,
    parent: i32,
}

/// `struct landlock_ruleset_attr`, which grows with versions.
#[repr(C)]
struct Ruleset {
    /// LANDLOCK_ACCESS_FS_*
    files: u64,
    /// LANDLOCK_ACCESS_NET_*
    ports: u64,
    /// LANDLOCK_SCOPE_*
    scopes: u64,
}

impl Ruleset {
    /// All that a version can forbid.
    fn all(version: libc::c_long) -> Self {
        // Accesses to files are numbered from 0 in the order in which they came: 13 at first, then links across
        // directories, truncating, and ioctls of devices.
        let kinds = match version {
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        let since = |first, bits| if version >= first { bits } else { 0 };
        // Before they were known, only zeroes may follow what was.
        Self {
            files: (1 << kinds) - 1,
            ports: since(4, 0b11),  // binding, connecting
            scopes: since(6, 0b11), // abstract sockets, signals
        }
    }
}

/// The version that this kernel has; 0 is none.
///
/// # Errors
/// When it has none, or it is switched off.
pub(super) fn version() -> io::Result<libc::c_long> {
    // SAFETY: with this flag the call reads nothing.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION) })
}

/// Forbids this thread, and all that it starts, whatever Landlock knows. It has given up new privileges.
pub(super) fn enter() -> io::Result<()> {
    restrict(&Ruleset::all(version()?), &[])
}

/// The same, but for some paths, and for connections to ports of TCP. Links are followed now; a path that is not there, or
/// that this user does not get to, is allowed to nobody.
pub(super) fn enter_with(paths: &[(&Path, Allowed)]) -> io::Result<()> {
    let mut ruleset = Ruleset::all(version()?);
    ruleset.ports &= !CONNECT;
    restrict(&ruleset, paths)
}

fn restrict(ruleset: &Ruleset, paths: &[(&Path, Allowed)]) -> io::Result<()> {
    // SAFETY: the structure has the size that is told, and is only read.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const *ruleset,
            size_of::<Ruleset>(),
            0,
        )
    })?;
    // SAFETY: the kernel has just made the descriptor, for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    for (path, allowed) in paths {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(found) = openat(CWD, *path, flags, Mode::empty()) else {
            continue;
        };
        let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
        let beneath = Beneath {
            // A right that this version does not know cannot be given.
            rights: allowed.rights(kind == FileType::Directory) & ruleset.files,
            parent: found.as_raw_fd(),
        };
        // SAFETY: the structure is the one of this kind of rule, and is only read.
        check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                fd.as_raw_fd(),
                PATH_BENEATH,
                &raw const beneath,
                0,
            )
        })?;
    }
    // SAFETY: takes a descriptor and flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0) }).map(drop)
}
