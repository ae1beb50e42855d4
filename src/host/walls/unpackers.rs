//! The list for who takes apart what strangers have packed: layers of images, which come over one descriptor, and go into
//! others that were opened before.
//!
//! What is not on it is refused: there is no way to open a file, to have a socket, or to start anything.

use super::fewest::FEWEST;
use kvmlet_sys::seccomp::Rule;

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [FEWEST, UNPACKERS].into_iter().flatten()
}

const UNPACKERS: &[Rule] = &[
    // What it has open.
    Rule::any(libc::SYS_readv),
    Rule::any(libc::SYS_pread64),
    Rule::any(libc::SYS_pwrite64),
    Rule::any(libc::SYS_lseek),
    Rule::any(libc::SYS_fstat),
    Rule::any(libc::SYS_ftruncate),
    Rule::equal(libc::SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC as u32),
    Rule::equal(libc::SYS_fcntl, 1, libc::F_GETFD as u32),
    Rule::equal(libc::SYS_fcntl, 1, libc::F_GETFL as u32),
    Rule::any(libc::SYS_copy_file_range),
    Rule::any(libc::SYS_sendfile),
    Rule::any(libc::SYS_splice),
    Rule::any(libc::SYS_statx),
    Rule::any(libc::SYS_newfstatat),
    // Pauses of who has no room.
    Rule::any(libc::SYS_sched_yield),
    // Memory as older allocators take it, and the end of a thread's stack for signals.
    Rule::any(libc::SYS_brk),
    Rule::any(libc::SYS_sigaltstack),
];
