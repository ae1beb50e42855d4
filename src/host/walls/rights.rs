//! What a supervisor, and the process beside it that serves strangers, keep of the caller's rights once all is set up.
//!
//! They outlive what those were needed for. Each keeps what its work takes, and no program gives any back. Where threads
//! of one process do the same, for those who embed kvmlet, they share their memory: who takes one over has the rights of
//! all.

use crate::walls::attending::DENIED;
use crate::walls::jail::{Allowed, name_few_paths, name_no_paths, user_of_server};
use crate::walls::{fetchers, strangers, unpackers};
use kvmlet_sys::seccomp::{Program, check_support};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_no_new_privs};
use std::io;
use std::path::Path;

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

/// Leaves this thread, which keeps a user's own files and hears a guest, no capability, and takes what
/// [whoever attends a VM](attend) has no use for either.
///
/// # Errors
/// What the kernel says, if not that it knows no such filters.
pub fn keep_books() -> io::Result<()> {
    keep(CapabilitySet::empty())?;
    attend()
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

/// Leaves this process, which has one thread and takes apart what strangers have packed, no more than what it has open: no
/// capability, no path, and few system calls.
///
/// # Errors
/// What the kernel says, if not that it knows no such walls.
pub fn take_apart() -> io::Result<()> {
    become_stranger()?;
    name_no_paths()?;
    hold(|| Program::refusing(unpackers::rules()))
}

/// Leaves this process, which has one thread and speaks TCP and HTTP with a guest, its sockets and no more: no capability, no
/// path, and few system calls.
///
/// # Errors
/// What the kernel says, if not that it knows no such walls.
pub fn answer_guests() -> io::Result<()> {
    become_stranger()?;
    name_no_paths()?;
    hold(|| Program::refusing(strangers::rules_of_responders()))
}

/// Who becomes the user that [takes apart](take_apart).
const OF_ANOTHER_USER: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// Leaves this process, which has one thread yet and fetches from strangers, some paths, sockets of the Internet, and
/// programs among these paths. Root's may start a process of another user, which is what [`take_apart`] is for.
///
/// # Errors
/// What the kernel says, if not that it knows no such walls.
pub fn fetch(paths: &[(&Path, Allowed)]) -> io::Result<()> {
    keep(OF_ANOTHER_USER)?;
    name_few_paths(paths)?;
    hold(|| Program::refusing(fetchers::rules()))
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
    fn who_takes_apart_has_what_is_open() {
        let thread = std::thread::spawn(|| {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("open");
            let mut file = File::create(&path).unwrap();
            take_apart().unwrap();
            std::io::Write::write_all(&mut file, b"written").unwrap();
            let forbidden = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
            };
            forbidden(File::open("/etc/hosts").map(drop));
            forbidden(std::fs::remove_file(&path));
            forbidden(std::net::UdpSocket::bind("127.0.0.1:0").map(drop));
            forbidden(std::os::unix::net::UnixStream::pair().map(drop));
            forbidden(std::process::Command::new("/bin/true").status().map(drop));
            // Removed by the test, which can.
            place.keep()
        });
        let place = thread.join().unwrap();
        assert_eq!(std::fs::read(place.join("open")).unwrap(), b"written");
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn who_fetches_has_a_store_and_the_internet() {
        let (place, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let (store, knows_paths) = (place.path().to_owned(), has_landlock());
        let secret_of_others = secret.clone();
        let thread = std::thread::spawn(move || {
            let secret = secret_of_others;
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let hosts = Path::new("/etc/hosts");
            let gone = Path::new("/not/there");
            fetch(&[
                (&store, Allowed::Change),
                (hosts, Allowed::Read),
                (gone, Allowed::Read),
            ])
            .unwrap();
            let rights = capabilities(None).unwrap();
            assert_eq!(rights.permitted - OF_ANOTHER_USER, CapabilitySet::empty());
            let (new, kept) = (store.join("new"), store.join("kept"));
            std::fs::write(&new, "new").unwrap();
            std::fs::rename(&new, &kept).unwrap();
            std::fs::write(&new, "new").unwrap();
            std::fs::remove_file(&new).unwrap();
            File::open(hosts).unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let forbidden = |result: io::Result<()>, number| {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(number));
            };
            if knows_paths {
                forbidden(File::open(&secret).map(drop), libc::EACCES);
                forbidden(File::create(&secret).map(drop), libc::EACCES);
                forbidden(std::fs::remove_file(&secret), libc::EACCES);
                forbidden(File::open("/etc/passwd").map(drop), libc::EACCES);
                forbidden(File::create(hosts).map(drop), libc::EACCES);
                let program = std::process::Command::new("/bin/true").status();
                forbidden(program.map(drop), libc::EACCES);
            }
            let pair = std::os::unix::net::UnixStream::pair();
            forbidden(pair.map(drop), libc::EPERM);
            forbidden(std::fs::create_dir(&new), libc::EPERM);
            let parent = rustix::process::getppid().unwrap();
            let killed = rustix::process::test_kill_process(parent);
            forbidden(killed.map_err(Into::into), libc::EPERM);
            // SAFETY: it is refused; and would it not be, nobody knows where it is.
            let code = unsafe {
                let (rights, flags) = (libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0)
            };
            assert_eq!(code, libc::MAP_FAILED);
            std::fs::read_to_string(kept).unwrap()
        });
        assert_eq!(thread.join().unwrap(), "new");
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "secret");
    }

    /// Whether this kernel knows the wall that is about paths.
    fn has_landlock() -> bool {
        let thread = std::thread::spawn(|| {
            set_no_new_privs(true).unwrap();
            name_no_paths().unwrap();
            File::open("/etc/hosts").is_err()
        });
        thread.join().unwrap()
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
