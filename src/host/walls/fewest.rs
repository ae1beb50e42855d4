//! What every process beside a VM does that has a list of system calls: reads and writes what it has open, waits, takes
//! memory, and ends.

use kvmlet_sys::seccomp::{Check, Rule, elsewhere};

/// All rules of some lists, and what other hosts' libraries call.
pub fn all<const COUNT: usize>(
    lists: [&'static [Rule]; COUNT],
) -> impl Iterator<Item = &'static Rule> {
    let elsewhere = elsewhere().map(|elsewhere| &elsewhere.rule);
    lists.into_iter().flatten().chain(elsewhere)
}

/// The rules for that.
pub const FEWEST: &[Rule] = &[
    // What is there, and the log.
    Rule::any(libc::SYS_read),
    Rule::any(libc::SYS_write),
    Rule::any(libc::SYS_writev),
    Rule::any(libc::SYS_close),
    // Turns.
    Rule::any(libc::SYS_futex),
    Rule::any(libc::SYS_ppoll),
    // Keys of tables.
    Rule::any(libc::SYS_getrandom),
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

/// What is done with sockets that are there.
pub const MESSAGES: &[Rule] = &[
    Rule::any(libc::SYS_recvfrom),
    Rule::any(libc::SYS_recvmsg),
    Rule::any(libc::SYS_sendmsg),
    Rule::any(libc::SYS_sendto),
];

/// What it takes to have sockets of the Internet, and no others.
pub const INTERNET: &[Rule] = &[
    Rule::equal(libc::SYS_socket, 0, libc::AF_INET as u32),
    Rule::equal(libc::SYS_socket, 0, libc::AF_INET6 as u32),
    Rule::any(libc::SYS_bind),
    Rule::any(libc::SYS_connect),
    Rule::any(libc::SYS_getpeername),
    Rule::any(libc::SYS_getsockname),
    Rule::any(libc::SYS_getsockopt),
    Rule::any(libc::SYS_setsockopt),
    Rule::any(libc::SYS_shutdown),
    Rule::equal(libc::SYS_ioctl, 1, libc::FIONBIO as u32),
];
