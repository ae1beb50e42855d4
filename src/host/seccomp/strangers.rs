//! The list for threads that serve strangers outside of a VM's process: the proxy of published ports and names.
//!
//! What is not on it is refused rather than the end of the process: that holds interfaces and shares of a VM which
//! runs well. There is no way to start a program or a thread, to change a file, or to have a socket that is not of
//! the Internet.

use super::elsewhere::elsewhere;
use super::lists::{Check, Rule, any, equal};

const fn without(call: libc::c_long, argument: u8, bits: u32) -> Rule {
    Rule {
        call,
        check: Check::Without(argument, bits),
    }
}

/// All that makes or changes a file when it is opened.
const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE) as u32
    & !(libc::O_DIRECTORY as u32);

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    STRANGERS
        .iter()
        .chain(elsewhere().map(|elsewhere| &elsewhere.rule))
}

const STRANGERS: &[Rule] = &[
    // Events.
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_pwait2),
    any(libc::SYS_epoll_wait),
    any(libc::SYS_futex),
    any(libc::SYS_poll),
    any(libc::SYS_ppoll),
    // Sockets.
    any(libc::SYS_accept4),
    any(libc::SYS_bind),
    any(libc::SYS_connect),
    any(libc::SYS_getpeername),
    any(libc::SYS_getsockname),
    any(libc::SYS_getsockopt),
    any(libc::SYS_recvfrom),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendmsg),
    any(libc::SYS_sendto),
    any(libc::SYS_setsockopt),
    any(libc::SYS_shutdown),
    equal(libc::SYS_socket, 0, libc::AF_INET as u32),
    equal(libc::SYS_socket, 0, libc::AF_INET6 as u32),
    equal(libc::SYS_ioctl, 1, libc::FIONBIO as u32),
    equal(libc::SYS_ioctl, 1, libc::SIOCGIFINDEX as u32),
    any(libc::SYS_getrandom),
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_writev),
    any(libc::SYS_close),
    // The host's list of name servers.
    without(libc::SYS_openat, 2, WRITES),
    any(libc::SYS_statx),
    any(libc::SYS_newfstatat),
    any(libc::SYS_fstat),
    any(libc::SYS_lseek),
    any(libc::SYS_fcntl),
    // Memory, but none to execute.
    any(libc::SYS_madvise),
    without(libc::SYS_mmap, 2, libc::PROT_EXEC as u32),
    without(libc::SYS_mprotect, 2, libc::PROT_EXEC as u32),
    any(libc::SYS_mremap),
    any(libc::SYS_munmap),
    // The end of the thread, and of the process.
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    any(libc::SYS_getpid),
    any(libc::SYS_gettid),
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    Rule {
        call: libc::SYS_tgkill,
        check: Check::OwnProcess(0),
    },
];
