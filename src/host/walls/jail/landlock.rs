//! Landlock (Linux Documentation/userspace-api/landlock.rst): a set of rules that allows nothing.

use super::check;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::{FromRawFd, OwnedFd};

/// LANDLOCK_CREATE_RULESET_VERSION (linux/landlock.h).
const VERSION: libc::c_ulong = 1;

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
    fn all(version: libc::c_long) -> (Self, usize) {
        // Accesses to files are numbered from 0 in the order in which they came: 13 at first, then links across
        // directories, truncating, and ioctls of devices.
        let kinds = match version {
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        let since = |first, bits| if version >= first { bits } else { 0 };
        let all = Self {
            files: (1 << kinds) - 1,
            ports: since(4, 0b11),  // binding, connecting
            scopes: since(6, 0b11), // abstract sockets, signals
        };
        // Before they were known, only zeroes may follow what was.
        (all, size_of::<Self>())
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
    let (ruleset, size) = Ruleset::all(version()?);
    // SAFETY: the structure has the size that is told, and is only read.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size,
            0,
        )
    })?;
    // SAFETY: the kernel has just made the descriptor, for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: takes a descriptor and flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0) }).map(drop)
}
