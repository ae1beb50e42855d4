//! The list for who talks to registries: TLS and HTTP of strangers, with the store of images at hand. It is wide, since what
//! a C library does to find a host differs; which files it may open is for Landlock to say.
//!
//! What is not on it is refused: other sockets than those of the Internet (on others there are programs that do what they
//! are told, for whoever is this user), signals for other processes, other users' processes, code made of data, mounts,
//! namespaces, keys, and what goes around lists. It starts itself, for what it [takes apart](super::unpackers),
//! and that process gives up the rest: so what that takes is here, too.

use super::fewest::{FEWEST, INTERNET, MESSAGES, all};
use kvmlet_sys::seccomp::Rule;

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let loader = match cfg!(target_feature = "crt-static") {
        true => &[],
        false => LOADER,
    };
    all([
        FEWEST, FILES, MESSAGES, INTERNET, SOCKETS, PROCESSES, loader,
    ])
}

const FILES: &[Rule] = &[
    Rule::any(libc::SYS_open),
    Rule::any(libc::SYS_openat),
    Rule::any(libc::SYS_readv),
    Rule::any(libc::SYS_pread64),
    Rule::any(libc::SYS_pwrite64),
    Rule::any(libc::SYS_preadv),
    Rule::any(libc::SYS_pwritev),
    Rule::any(libc::SYS_lseek),
    Rule::any(libc::SYS_stat),
    Rule::any(libc::SYS_lstat),
    Rule::any(libc::SYS_fstat),
    Rule::any(libc::SYS_newfstatat),
    Rule::any(libc::SYS_statx),
    Rule::any(libc::SYS_statfs),
    Rule::any(libc::SYS_fstatfs),
    Rule::any(libc::SYS_access),
    Rule::any(libc::SYS_faccessat),
    Rule::any(libc::SYS_faccessat2),
    Rule::any(libc::SYS_readlink),
    Rule::any(libc::SYS_readlinkat),
    Rule::any(libc::SYS_getdents64),
    Rule::any(libc::SYS_getcwd),
    Rule::any(libc::SYS_umask),
    Rule::any(libc::SYS_fcntl),
    Rule::any(libc::SYS_flock),
    Rule::any(libc::SYS_dup),
    Rule::any(libc::SYS_dup2),
    Rule::any(libc::SYS_dup3),
    Rule::any(libc::SYS_pipe),
    Rule::any(libc::SYS_pipe2),
    Rule::any(libc::SYS_ftruncate),
    Rule::any(libc::SYS_fallocate),
    Rule::any(libc::SYS_fadvise64),
    Rule::any(libc::SYS_fchmod),
    Rule::any(libc::SYS_fsync),
    Rule::any(libc::SYS_fdatasync),
    Rule::any(libc::SYS_copy_file_range),
    Rule::any(libc::SYS_sendfile),
    Rule::any(libc::SYS_splice),
    Rule::any(libc::SYS_linkat),
    Rule::any(libc::SYS_unlink),
    Rule::any(libc::SYS_unlinkat),
    Rule::any(libc::SYS_rename),
    Rule::any(libc::SYS_renameat),
    Rule::any(libc::SYS_renameat2),
    // Progress on a terminal.
    Rule::equal(libc::SYS_ioctl, 1, libc::TCGETS as u32),
    Rule::equal(libc::SYS_ioctl, 1, libc::TIOCGWINSZ as u32),
];

const SOCKETS: &[Rule] = &[
    // Which addresses this host has: C libraries sort those of a name by it.
    Rule::equal(libc::SYS_socket, 0, libc::AF_NETLINK as u32),
    Rule::any(libc::SYS_recvmmsg),
    Rule::any(libc::SYS_sendmmsg),
    Rule::any(libc::SYS_poll),
    Rule::any(libc::SYS_select),
    Rule::any(libc::SYS_pselect6),
    Rule::equal(libc::SYS_ioctl, 1, libc::FIONREAD as u32),
];

const PROCESSES: &[Rule] = &[
    // Threads, and this program once more.
    Rule::any(libc::SYS_clone),
    Rule::any(libc::SYS_clone3),
    Rule::any(libc::SYS_fork),
    Rule::any(libc::SYS_vfork),
    Rule::any(libc::SYS_execve),
    Rule::any(libc::SYS_wait4),
    Rule::any(libc::SYS_waitid),
    Rule::any(libc::SYS_set_tid_address),
    Rule::any(libc::SYS_set_robust_list),
    Rule::any(libc::SYS_arch_prctl),
    Rule::any(libc::SYS_sched_getaffinity),
    Rule::any(libc::SYS_nanosleep),
    Rule::any(libc::SYS_clock_nanosleep),
    Rule::any(libc::SYS_uname),
    Rule::any(libc::SYS_sysinfo),
    Rule::any(libc::SYS_getppid),
    Rule::any(libc::SYS_getuid),
    Rule::any(libc::SYS_geteuid),
    Rule::any(libc::SYS_getgid),
    Rule::any(libc::SYS_getegid),
    // Its own limits, and walls that are narrower still.
    Rule::equal(libc::SYS_prlimit64, 0, 0),
    Rule::any(libc::SYS_getrlimit),
    Rule::any(libc::SYS_setrlimit),
    Rule::any(libc::SYS_prctl),
    Rule::any(libc::SYS_setgroups),
    Rule::any(libc::SYS_setresgid),
    Rule::any(libc::SYS_setresuid),
    Rule::any(libc::SYS_capget),
    Rule::any(libc::SYS_capset),
    Rule::any(libc::SYS_landlock_create_ruleset),
    Rule::any(libc::SYS_landlock_restrict_self),
    Rule::any(libc::SYS_seccomp),
];

/// A program with libraries of the host maps their code; as kvmlet is built here, it has none.
const LOADER: &[Rule] = &[Rule::any(libc::SYS_mmap), Rule::any(libc::SYS_mprotect)];
