//! What a supervisor, and the process beside it that serves strangers, keep of the caller's rights once all is set up.
//!
//! They outlive what those were needed for. Each keeps what its work takes, and no program gives any back. Where threads
//! of one process do the same, for those who embed kvmlet, they share their memory: who takes one over has the rights of
//! all.

use crate::walls::attending::DENIED;
use crate::walls::jail::user_of_server;
use crate::walls::strangers;
use kvmlet_sys::seccomp::{Program, check_support};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs};
use std::io;

/// What the end of a VM takes: its process, which has another user, is signalled; its interface is taken down; and
/// statistics and cgroups may be in directories of other users, and stay theirs.
const OF_THE_END: CapabilitySet = CapabilitySet::KILL
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER);

/// Leaves this thread, and those that it starts, what the end of a VM takes.
///
/// # Errors
/// What the kernel says.
pub fn keep_those_of_the_end() -> io::Result<()> {
    keep(OF_THE_END)
}

/// Takes from this thread, and from those that it starts, what it has no use for once all is set up: among others to
/// start programs and to make code of data.
///
/// # Errors
/// What the kernel says, if not that it knows no such filters.
pub fn attend() -> io::Result<()> {
    hold(|| Program::denying(DENIED.iter()))
}

/// Leaves this thread the right to change the network.
///
/// # Errors
/// What the kernel says.
pub fn keep_those_of_networks() -> io::Result<()> {
    keep(CapabilitySet::NET_ADMIN)
}

/// Leaves this thread, which serves strangers, no capability and few system calls. Root's has a user
/// of its own from then on: what only root can read, it cannot; and that nobody else has, for who is the user of one
/// thread may signal and limit the whole process (kill(2), prlimit(2)). And nobody may trace it: threads have one
/// memory, so the caller's other processes, which may trace a thread without rights, would have those of all threads
/// (PTRACE_MODE_ATTACH in ptrace(2)).
///
/// # Errors
/// What the kernel says, if not that it knows no such filters.
pub fn serve_strangers() -> io::Result<()> {
    become_stranger()?;
    hold_to_strangers_list()
}

/// Leaves this thread, which carries frames between a guest and passt, no capability and fewer system calls still: it opens
/// nothing.
///
/// # Errors
/// What the kernel says, if not that it knows no such filters.
pub fn carry_frames() -> io::Result<()> {
    become_stranger()?;
    hold_to_relays_list()
}

/// The first part of [that](serve_strangers): all but the system calls.
///
/// # Errors
/// What the kernel says.
pub fn become_stranger() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if rustix::process::geteuid().is_root() {
        become_user(user_of_server(std::process::id()));
    }
    keep(CapabilitySet::empty())
}

/// The other part.
///
/// # Errors
/// What the kernel says, if not that it knows no such filters.
pub fn hold_to_strangers_list() -> io::Result<()> {
    hold(|| Program::refusing(strangers::rules()))
}

/// The other part for who [carries frames](carry_frames).
///
/// # Errors
/// What the kernel says, if not that it knows no such filters.
pub fn hold_to_relays_list() -> io::Result<()> {
    hold(|| Program::refusing(strangers::rules_of_relays()))
}

/// Holds this thread to a list, if the kernel knows such.
fn hold(program: impl FnOnce() -> io::Result<Program>) -> io::Result<()> {
    match check_support() {
        Ok(()) => program()?.install(),
        Err(_) => Ok(()),
    }
}

/// As far as this root can: that of a container may have no such user, and stays root without capabilities.
fn become_user(user: libc::uid_t) {
    // System calls, because the C library's functions change the user of all threads.
    // SAFETY: numbers, and an empty list of groups.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, 0);
        libc::syscall(libc::SYS_setresgid, user, user, user);
        libc::syscall(libc::SYS_setresuid, user, user, user);
    }
}

fn keep(some: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    let mut sets = capabilities(None)?;
    sets.permitted &= some;
    sets.effective &= some;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// What /proc says of this thread.
    fn status(key: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').trim().into()
    }

    #[test]
    fn who_serves_strangers_has_no_rights() {
        let is_root = rustix::process::geteuid().is_root();
        let thread = std::thread::spawn(move || {
            serve_strangers().unwrap();
            assert_eq!(status("CapEff"), "0".repeat(16));
            assert_eq!(status("CapPrm"), "0".repeat(16));
            assert_eq!((&*status("NoNewPrivs"), &*status("Seccomp")), ("1", "2"));
            if is_root {
                let user = user_of_server(std::process::id()).to_string();
                assert_eq!(status("Uid"), [&*user; 4].join("\t"));
                let secret = File::open("/etc/shadow").unwrap_err();
                assert_eq!(secret.kind(), io::ErrorKind::PermissionDenied);
            }
            // The list of name servers can be read, and sockets of the Internet be made.
            File::open("/etc/hosts").unwrap();
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let forbidden = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
            };
            forbidden(File::create("/tmp/kvmlet-serves-strangers").map(drop));
            forbidden(std::os::unix::net::UnixStream::pair().map(drop));
            forbidden(std::process::Command::new("/bin/true").status().map(drop));
            forbidden(std::fs::remove_file("/tmp/kvmlet-serves-strangers"));
        });
        thread.join().unwrap();
    }

    #[test]
    fn who_carries_frames_opens_nothing() {
        let thread = std::thread::spawn(|| {
            let (near, _far) = kvmlet_sys::frames::FrameSocket::pair().unwrap();
            carry_frames().unwrap();
            assert!(capabilities(None).unwrap_err() == rustix::io::Errno::PERM);
            rustix::net::send(&near, b"frame", rustix::net::SendFlags::empty()).unwrap();
            let forbidden = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
            };
            forbidden(File::open("/etc/hosts").map(drop));
            forbidden(std::net::UdpSocket::bind("127.0.0.1:0").map(drop));
            forbidden(std::net::TcpStream::connect("127.0.0.1:1").map(drop));
            forbidden(std::process::Command::new("/bin/true").status().map(drop));
        });
        thread.join().unwrap();
    }

    #[test]
    fn who_attends_a_vm_starts_and_maps_no_code() {
        let thread = std::thread::spawn(|| {
            attend().unwrap();
            for rule in DENIED {
                let mut arguments = [0; 6];
                if let kvmlet_sys::seccomp::Check::With(argument, bits) = rule.check {
                    arguments[usize::from(argument)] = bits;
                }
                let [a, b, c, d, e, f] = arguments;
                // SAFETY: it is refused; and would it not be, there is nothing at zero.
                let result = unsafe { libc::syscall(rule.call, a, b, c, d, e, f) };
                let error = io::Error::last_os_error().raw_os_error();
                assert_eq!((result, error), (-1, Some(libc::EPERM)), "{rule:?}");
            }
            let program = std::process::Command::new("/bin/true").status();
            assert_eq!(program.unwrap_err().raw_os_error(), Some(libc::EPERM));
            // Threads that it starts later serve strangers and look after rules.
            let below = std::thread::spawn(|| {
                assert_eq!(status("Seccomp"), "2");
                serve_strangers().unwrap();
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            });
            below.join().unwrap();
        });
        thread.join().unwrap();
    }

    #[test]
    fn other_rights_go_and_do_not_come_back() {
        let thread = std::thread::spawn(|| {
            let before = capabilities(None).unwrap().permitted;
            keep_those_of_the_end().unwrap();
            let sets = capabilities(None).unwrap();
            assert_eq!(sets.effective, before & OF_THE_END);
            keep_those_of_networks().unwrap();
            let sets = capabilities(None).unwrap();
            assert_eq!(sets.permitted, before & CapabilitySet::NET_ADMIN);
            assert_eq!(status("NoNewPrivs"), "1");
        });
        thread.join().unwrap();
    }
}
