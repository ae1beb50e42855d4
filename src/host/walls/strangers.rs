//! The lists for who serves strangers outside of a VM's process: the proxy of published ports and names, and the relay
//! between a guest and passt.
//!
//! What is not on it is refused rather than the end of the process: a VM runs well that it serves. There is no way to
//! start a program or a thread, to change a file, or to have a socket that is not of the Internet.

use kvmlet_sys::seccomp::{Check, Rule, elsewhere};

/// All that makes or changes a file when it is opened.
const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE) as u32
    & !(libc::O_DIRECTORY as u32);

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    [BOTH, STRANGERS]
        .into_iter()
        .flatten()
        .chain(elsewhere().map(|elsewhere| &elsewhere.rule))
}

/// All rules for who carries a guest's frames to passt and back: it has all its sockets when it begins.
pub fn rules_of_relays() -> impl Iterator<Item = &'static Rule> {
    [BOTH, RELAYS]
        .into_iter()
        .flatten()
        .chain(elsewhere().map(|elsewhere| &elsewhere.rule))
}

/// What both kinds do.
const BOTH: &[Rule] = &[
    // Events, and sockets that are there.
    Rule::any(libc::SYS_futex),
    Rule::any(libc::SYS_ppoll),
    Rule::any(libc::SYS_recvfrom),
    Rule::any(libc::SYS_recvmsg),
    Rule::any(libc::SYS_sendmsg),
    Rule::any(libc::SYS_sendto),
    // Keys of tables.
    Rule::any(libc::SYS_getrandom),
    // The log, and whose end it is.
    Rule::any(libc::SYS_read),
    Rule::any(libc::SYS_write),
    Rule::any(libc::SYS_writev),
    Rule::any(libc::SYS_close),
    // Memory, but none to execute.
    Rule::any(libc::SYS_madvise),
    Rule::without(libc::SYS_mmap, 2, libc::PROT_EXEC as u32),
    Rule::without(libc::SYS_mprotect, 2, libc::PROT_EXEC as u32),
    Rule::any(libc::SYS_mremap),
    Rule::any(libc::SYS_munmap),
    // The end of the thread, and of the process.
    Rule::any(libc::SYS_exit),
    Rule::any(libc::SYS_exit_group),
    Rule::any(libc::SYS_getpid),
    Rule::any(libc::SYS_gettid),
    Rule::any(libc::SYS_rt_sigaction),
    Rule::any(libc::SYS_rt_sigprocmask),
    Rule::any(libc::SYS_rt_sigreturn),
    Rule {
        call: libc::SYS_tgkill,
        check: Check::OwnProcess(0),
    },
];

const RELAYS: &[Rule] = &[
    // What passt has not read yet.
    Rule::equal(libc::SYS_ioctl, 1, libc::TIOCOUTQ as u32),
];

const STRANGERS: &[Rule] = &[
    // Events.
    Rule::any(libc::SYS_epoll_ctl),
    Rule::any(libc::SYS_epoll_pwait),
    Rule::any(libc::SYS_epoll_pwait2),
    Rule::any(libc::SYS_epoll_wait),
    Rule::any(libc::SYS_poll),
    // Sockets.
    Rule::any(libc::SYS_accept4),
    Rule::any(libc::SYS_bind),
    Rule::any(libc::SYS_connect),
    Rule::any(libc::SYS_getpeername),
    Rule::any(libc::SYS_getsockname),
    Rule::any(libc::SYS_getsockopt),
    Rule::any(libc::SYS_setsockopt),
    Rule::any(libc::SYS_shutdown),
    Rule::equal(libc::SYS_socket, 0, libc::AF_INET as u32),
    Rule::equal(libc::SYS_socket, 0, libc::AF_INET6 as u32),
    Rule::equal(libc::SYS_ioctl, 1, libc::FIONBIO as u32),
    Rule::equal(libc::SYS_ioctl, 1, libc::SIOCGIFINDEX as u32),
    // The host's list of name servers.
    Rule::without(libc::SYS_openat, 2, WRITES),
    Rule::any(libc::SYS_statx),
    Rule::any(libc::SYS_newfstatat),
    Rule::any(libc::SYS_fstat),
    Rule::any(libc::SYS_lseek),
    Rule::any(libc::SYS_fcntl),
];
