//! From inside: what can still be reached? Each test runs in a process of its own that has one thread, and
//! forks from there.

mod containers;
mod shared;

use super::attempts::{ATTEMPTS, EXCESSES, Host, OF_LANDLOCK, all, beyond_landlock, reachable};
use super::*;
pub(crate) use crate::alone::end;
use kvmlet_sys::process::{Child, Ended};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{File, read_link, read_to_string};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// A user of no rank.
const ORDINARY: libc::uid_t = 12345;

/// Runs `body` in a process with one thread and no more open than it needs.
pub(crate) fn alone(room: &str, test: &str, body: impl FnOnce()) {
    crate::alone::alone(&format!("{room}::tests::{test}"), body);
}

/// Does it have a user of its own, and namespaces that are the host's?
fn is_root(jail: &Jail) -> bool {
    !jail.around && matches!(jail.user, User::Own(_))
}

/// Forks, and runs `body` in the child, which ends with it.
fn forked(jail: &Jail, body: impl FnOnce(&Lifeline)) -> Child {
    match jail.fork(None, false).unwrap() {
        (Fork::Parent(child), None) => child,
        (Fork::Child(lifeline), None) => end(|| body(&lifeline)),
        (_, Some(missing)) => panic!("{missing}: {}", missing.source),
    }
}

fn succeeded(child: Child) {
    assert_eq!(child.wait().unwrap(), Ended::Exited(0));
}

/// Brings this process, which has nothing to open, into a jail.
fn enter(jail: &Jail, lifeline: &Lifeline, best_effort: bool) -> Result<Vec<Missing>, Missing> {
    enter_with(jail, lifeline, best_effort, None)
}

/// The same, with a network namespace that is kept there.
fn enter_with(
    jail: &Jail,
    lifeline: &Lifeline,
    best_effort: bool,
    shared: Option<Directory>,
) -> Result<Vec<Missing>, Missing> {
    let ((), cut_off) = jail.cut_off(best_effort, shared.as_ref(), || ());
    drop(shared);
    let needs = Needs {
        threads: 1,
        descriptors: 0,
        memory_bytes: 1 << 30,
    };
    cut_off?.enter(lifeline, needs)
}

/// Runs `body` in a jail, with all that this kernel has for one.
pub(super) fn jailed(body: impl FnOnce()) -> Child {
    let jail = Jail::new(std::process::id());
    forked(&jail, |lifeline| {
        let missing = enter(&jail, lifeline, false).unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        body();
    })
}

/// Becomes a user of no rank, as whom the rest of this process goes on.
fn become_ordinary() {
    // SAFETY: numbers. A process that has changed its user may not be looked into, which it has to be to
    // make a user namespace from a test.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(ORDINARY, ORDINARY, ORDINARY), 0);
        assert_eq!(libc::setresuid(ORDINARY, ORDINARY, ORDINARY), 0);
    }
}

#[test]
fn the_jail_as_seen_from_outside() {
    alone("walls::jail", "the_jail_as_seen_from_outside", || {
        assert!(is_root(&Jail::new(1)), "this test needs root");
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (tell, told) = pipe_with(PipeFlags::CLOEXEC)
            .map(|(read, write)| (write, read))
            .unwrap();
        let child = jailed(|| {
            File::from(tell.try_clone().unwrap())
                .write_all(b"x")
                .unwrap();
            File::from(wait).read_exact(&mut [0]).unwrap();
        });
        drop(tell);
        File::from(told).read_exact(&mut [0]).unwrap();
        let proc = format!("/proc/{}", child.pid().as_raw_nonzero());
        for kind in ["mnt", "pid", "ipc", "uts", "net", "user"] {
            let own = read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(read_link(format!("{proc}/ns/{kind}")).unwrap(), own);
        }
        let user = identity::user(std::process::id());
        let status = read_to_string(format!("{proc}/status")).unwrap();
        for line in [
            format!("Uid:\t{user}\t{user}\t{user}\t{user}"),
            format!("Gid:\t{user}\t{user}\t{user}\t{user}"),
            "Groups:\t ".into(),
            "CapInh:\t0000000000000000".into(),
            "CapPrm:\t0000000000000000".into(),
            "CapEff:\t0000000000000000".into(),
            "CapBnd:\t0000000000000000".into(),
            "CapAmb:\t0000000000000000".into(),
            "NoNewPrivs:\t1".into(),
            "Threads:\t1".into(),
        ] {
            assert!(status.lines().any(|have| have == line), "{line}\n{status}");
        }
        assert_eq!(read_to_string(format!("{proc}/uid_map")).unwrap(), "");
        let mounts = read_to_string(format!("{proc}/mounts")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(
            mounts.starts_with("jail / tmpfs ro,nosuid,nodev,noexec"),
            "{mounts}"
        );
        let interfaces = read_to_string(format!("{proc}/net/dev")).unwrap();
        let names: Vec<_> = interfaces
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        assert!(
            names.iter().all(|(name, _)| name.trim() == "lo"),
            "{interfaces}"
        );
        let environment = std::fs::read(format!("{proc}/environ")).unwrap();
        assert!(environment.iter().all(|byte| *byte == 0));
        let limits = read_to_string(format!("{proc}/limits")).unwrap();
        for (name, least, most) in [
            ("Max core file size", 0, 0),
            ("Max open files", 65, 200),
            ("Max processes", 64, 128),
            ("Max msgqueue size", 0, 0),
        ] {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            let mut words = line[name.len()..].split_whitespace();
            let hard: u64 = words.nth(1).unwrap().parse().unwrap();
            assert!((least..=most).contains(&hard), "{line}");
        }
        File::from(go).write_all(b"x").unwrap();
        succeeded(child);
    });
}

/// Tries all there is, with the things of the host in reach as far as they can be.
fn nothing_of_the_host_can_be_reached() {
    let host = Host::new();
    succeeded(jailed(|| {
        for (what, attempt) in ATTEMPTS.iter().chain(EXCESSES) {
            assert_eq!(attempt(&host), -1, "{what} is available");
        }
        host.write_at(0).unwrap();
        host.write_at((1 << 20) - 1).unwrap();
        assert_eq!(std::env::vars_os().count(), 0);
    }));
    // From outside, the same things are there.
    for what in [
        "a file of the host",
        "a service of the host",
        "a socket by name",
        "the user's keys",
    ] {
        let (_, attempt) = ATTEMPTS.iter().find(|(name, _)| *name == what).unwrap();
        assert_ne!(attempt(&host), -1, "{what}: {}", io::Error::last_os_error());
    }
}

#[test]
fn nothing_of_the_host_can_be_reached_by_roots_vm() {
    alone(
        "walls::jail",
        "nothing_of_the_host_can_be_reached_by_roots_vm",
        || {
            assert!(is_root(&Jail::new(1)), "this test needs root");
            nothing_of_the_host_can_be_reached();
        },
    );
}

#[test]
fn nothing_of_the_host_can_be_reached_by_an_ordinary_users_vm() {
    alone(
        "walls::jail",
        "nothing_of_the_host_can_be_reached_by_an_ordinary_users_vm",
        || {
            become_ordinary();
            assert_eq!(Jail::new(1).user, User::Starter);
            nothing_of_the_host_can_be_reached();
        },
    );
}

#[test]
fn landlock_is_a_wall_by_itself() {
    alone("walls::jail", "landlock_is_a_wall_by_itself", || {
        let host = Host::new();
        // Nobody is kept from signals to himself.
        match process::fork(0, None).unwrap() {
            Fork::Parent(child) => succeeded(child),
            Fork::Child(_) => end(|| {
                let open = |path: &str| File::open(path).map_err(|error| error.raw_os_error());
                let null = open("/dev/null").unwrap();
                rustix::thread::set_no_new_privs(true).unwrap();
                landlock::enter().unwrap();
                assert_eq!(open("/etc/passwd").unwrap_err(), Some(libc::EACCES));
                assert_eq!(open("/").unwrap_err(), Some(libc::EACCES));
                let known = OF_LANDLOCK.map(|(what, _)| what);
                assert_eq!(
                    reachable(&host, &known),
                    beyond_landlock(landlock::version().unwrap(), &known)
                );
                // What is open can be used.
                assert_eq!((&null).read(&mut [0]).unwrap(), 0);
            }),
        }
    });
}

#[test]
fn this_host_has_all_walls() {
    alone("walls::jail", "this_host_has_all_walls", || {
        let missing = survey().unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        become_ordinary();
        let missing = survey().unwrap();
        assert!(missing.is_empty(), "{missing:?}");
    });
}

/// Becomes root of a container in which few users are and no network namespaces can be made.
fn enter_container() {
    namespaces::unshare(libc::CLONE_NEWUSER).unwrap();
    for (file, text) in [
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", "0 0 1"),
        ("/proc/self/gid_map", "0 0 1"),
        ("/proc/sys/user/max_net_namespaces", "0"),
    ] {
        std::fs::write(file, text).unwrap();
    }
}

#[test]
fn what_the_host_refuses_is_named() {
    alone("walls::jail", "what_the_host_refuses_is_named", || {
        enter_container();
        let jail = Jail::new(1);
        assert_eq!(jail.user, User::Root, "it has no user to become");
        succeeded(forked(&jail, |lifeline| {
            let missing = enter(&jail, lifeline, false).unwrap_err();
            assert_eq!(
                missing.to_string(),
                "the jail cannot have a network namespace"
            );
            assert!(missing.help().contains("user namespaces"));
        }));
        let host = Host::new();
        succeeded(forked(&jail, |lifeline| {
            let missing = enter(&jail, lifeline, true).unwrap();
            let walls: Vec<_> = missing.iter().map(|missing| missing.wall).collect();
            assert_eq!(walls, [Wall::Network, Wall::User]);
            // All others stand.
            assert_eq!(
                reachable(&host, &all()),
                beyond_landlock(
                    landlock::version().unwrap(),
                    &["a service of the host", "a socket by name"]
                )
            );
        }));
        assert_eq!(survey().unwrap().len(), 2);
    });
}

#[test]
fn the_end_of_the_parent_is_the_end_of_the_jail() {
    alone(
        "walls::jail",
        "the_end_of_the_parent_is_the_end_of_the_jail",
        || {
            let (alive, inside) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let parent = match process::fork(0, None).unwrap() {
                Fork::Parent(parent) => parent,
                Fork::Child(_) => end(|| {
                    jailed(|| {
                        File::from(inside.try_clone().unwrap())
                            .write_all(b"x")
                            .unwrap();
                        // SAFETY: waits for a signal.
                        unsafe { libc::pause() };
                    });
                    // SAFETY: as above.
                    unsafe { libc::pause() };
                }),
            };
            drop(inside);
            let mut alive = File::from(alive);
            alive.read_exact(&mut [0]).unwrap();
            parent.signal(rustix::process::Signal::KILL).unwrap();
            parent.wait().unwrap();
            // The last that held the other end has ended.
            assert_eq!(alive.read(&mut [0]).unwrap(), 0);
        },
    );
}

#[test]
fn an_open_directory_is_refused() {
    alone("walls::jail", "an_open_directory_is_refused", || {
        let root = File::open("/").unwrap();
        let jail = Jail::new(1);
        let child = forked(&jail, |lifeline| {
            let missing = enter(&jail, lifeline, false).unwrap_err();
            assert_eq!(missing.wall, Wall::Descriptors);
            assert!(
                missing.source.to_string().contains("is a directory"),
                "{missing:?}"
            );
        });
        succeeded(child);
        drop(root);
    });
}

#[test]
fn what_the_program_was_started_with_is_closed() {
    alone(
        "walls::jail",
        "what_the_program_was_started_with_is_closed",
        || {
            let own = File::open("/dev/null").unwrap();
            // SAFETY: a copy that a program started from here would have, too.
            let given = unsafe { libc::dup(own.as_raw_fd()) };
            assert!(given > libc::STDERR_FILENO);
            // SAFETY: only asks.
            let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1;
            succeeded(jailed(|| {
                let open = [0, 1, 2, own.as_raw_fd(), given].map(is_open);
                assert_eq!(open, [true, true, true, true, false]);
            }));
            assert!(is_open(given));
        },
    );
}

#[test]
fn the_first_thread_keeps_its_number_to_signal_it_by() {
    alone(
        "walls::jail",
        "the_first_thread_keeps_its_number_to_signal_it_by",
        || {
            succeeded(jailed(|| {
                // SAFETY: this thread lives as long as the other.
                let me = unsafe { libc::pthread_self() } as usize;
                let other = std::thread::spawn(move || {
                    // SAFETY: as above; signal 0 only asks.
                    unsafe { libc::pthread_kill(me as libc::pthread_t, 0) }
                });
                assert_eq!(other.join().unwrap(), 0);
            }));
        },
    );
}
