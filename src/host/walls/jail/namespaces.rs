//! Namespaces other than that of processes, which a process can only be born into.

use super::{Wall, check};
use std::io;

/// Those that any privilege over itself is enough for.
pub(super) const KINDS: [(Wall, libc::c_int); 4] = [
    (Wall::Mounts, libc::CLONE_NEWNS),
    (Wall::Ipc, libc::CLONE_NEWIPC),
    (Wall::HostName, libc::CLONE_NEWUTS),
    (Wall::Network, libc::CLONE_NEWNET),
];

/// Moves this process into new namespaces.
pub(super) fn unshare(flag: libc::c_int) -> io::Result<()> {
    // SAFETY: takes flags only.
    check(unsafe { libc::unshare(flag) }.into()).map(drop)
}
