//! The lists for who serves strangers outside of a VM's process: the proxy of published ports and names, and the relay
//! between a guest and passt.
//!
//! What is not on it is refused rather than the end of the process: a VM runs well that it serves. There is no way to
//! start a program or a thread, to change a file, or to have a socket that is not of the Internet.

use super::fewest::{FEWEST, INTERNET, MESSAGES, all};
use kvmlet_sys::seccomp::Rule;

/// All that makes or changes a file when it is opened.
const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE) as u32
    & !(libc::O_DIRECTORY as u32);

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    all([FEWEST, MESSAGES, INTERNET, STRANGERS])
}

/// All rules for who carries a guest's frames to passt and back: it has all its sockets when it begins.
pub fn rules_of_relays() -> impl Iterator<Item = &'static Rule> {
    all([FEWEST, MESSAGES, RELAYS])
}

/// All rules for who answers a guest from data that come by a descriptor: it has all its sockets when it begins.
pub fn rules_of_responders() -> impl Iterator<Item = &'static Rule> {
    all([FEWEST, MESSAGES, RESPONDERS])
}

const RESPONDERS: &[Rule] = &[
    // How much there is to read.
    Rule::any(libc::SYS_fstat),
    Rule::any(libc::SYS_statx),
    Rule::any(libc::SYS_lseek),
    // What was done so far, for who attends the VM.
    Rule::any(libc::SYS_pwrite64),
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
    Rule::equal(libc::SYS_ioctl, 1, libc::SIOCGIFINDEX as u32),
    // The host's list of name servers, which each C library opens in its way.
    Rule::without(libc::SYS_open, 1, WRITES),
    Rule::without(libc::SYS_openat, 2, WRITES),
    Rule::any(libc::SYS_statx),
    Rule::any(libc::SYS_newfstatat),
    Rule::any(libc::SYS_fstat),
    Rule::any(libc::SYS_lseek),
    Rule::any(libc::SYS_fcntl),
];
