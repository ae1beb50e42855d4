//! Jails where a container, a chroot or the host keeps walls from being built: all others stand.

use super::*;
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::Path;

/// What docker leaves to root of a container: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
/// NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const OF_DOCKER: u64 = 0xa804_25fb;
const SETUID: u64 = 1 << 7;

/// Leaves this process no capabilities but these.
fn keep(capabilities: u64) {
    for number in (0..64).filter(|number| capabilities >> number & 1 == 0) {
        // SAFETY: takes a number; beyond the last one it fails.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong) };
    }
    let header = [0x2008_0522_u32, 0];
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    // Effective, permitted, inheritable; the lower halves first.
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: structures of the sizes that capset(2) reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
}

/// Forbids namespaces and mounts the way that docker's profile does.
fn forbid_namespaces() {
    const NEW: u32 = 0x7e02_0000; // all CLONE_NEW*
    let refuse = |error: libc::c_int| libc::SECCOMP_RET_ERRNO | error as u32;
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let is = |call: libc::c_long, no: u8| {
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            call as u32,
            0,
            no,
        )
    };
    let load = |place| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, place, 0, 0);
    let answer = |answer| step(libc::BPF_RET | libc::BPF_K, answer, 0, 0);
    let filter = [
        load(0),
        is(libc::SYS_unshare, 1),
        answer(refuse(libc::EPERM)),
        is(libc::SYS_mount, 1),
        answer(refuse(libc::EPERM)),
        is(libc::SYS_clone3, 1),
        answer(refuse(libc::ENOSYS)),
        is(libc::SYS_clone, 3),
        load(16),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, NEW, 0, 1),
        answer(refuse(libc::EPERM)),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: a whole program. Root needs no further promise.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    assert_eq!(set, 0);
}

/// Runs `body` in a jail as far as one can be, with the walls that are missing.
fn as_far_as_it_goes(body: impl FnOnce(&[Wall])) {
    let jail = Jail::new(std::process::id());
    match jail.fork(None, true).unwrap() {
        (Fork::Parent(child), _) => succeeded(child),
        (Fork::Child(lifeline), pids) => end(|| {
            let missing = enter(&jail, &lifeline, true).unwrap();
            let missing = pids.iter().chain(&missing).map(|missing| missing.wall);
            body(&missing.collect::<Vec<_>>());
        }),
    }
}

/// What can be reached all the same.
fn reached(host: &Host) -> Vec<&'static str> {
    let mut tried = all();
    // In the host's PID namespace, `kill` returns 0 also if it was allowed to signal none of all.
    tried.retain(|what| *what != "killing all processes");
    reachable(host, &tried)
}

/// Checks lines of /proc/self/status that hold in every jail.
fn assert_nobody(user: libc::uid_t) {
    // Landlock is there, so it cannot be opened any more; a system call can be asked.
    // SAFETY: each returns or stores numbers.
    unsafe {
        assert_eq!((libc::getuid(), libc::getgid()), (user, user));
        let mut sets = [u32::MAX; 6];
        let header = [0x2008_0522_u32, 0];
        libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
        assert_eq!(sets, [0; 6]);
        assert_eq!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
        assert_eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    }
}

#[test]
fn all_other_walls_stand_where_no_namespaces_can_be_made() {
    alone(
        "walls::jail",
        "containers::all_other_walls_stand_where_no_namespaces_can_be_made",
        || {
            let host = Host::new();
            forbid_namespaces();
            keep(OF_DOCKER);
            let own = identity::user(std::process::id());
            as_far_as_it_goes(|missing| {
                let mounts = [Wall::Mounts, Wall::Ipc, Wall::HostName, Wall::Network];
                let expected = [&[Wall::Pids], &mounts[..], &[Wall::UserNamespace]].concat();
                assert_eq!(missing, expected);
                assert_nobody(own);
                let expected = [
                    "a handle on a process",
                    "a service of the host",
                    "a socket by name",
                ];
                assert_eq!(
                    reached(&host),
                    beyond_landlock(landlock::version().unwrap(), &expected)
                );
            });
        },
    );
}

#[test]
fn an_ordinary_user_without_namespaces_has_all_other_walls() {
    alone(
        "walls::jail",
        "containers::an_ordinary_user_without_namespaces_has_all_other_walls",
        || {
            forbid_namespaces();
            become_ordinary();
            let host = Host::new();
            as_far_as_it_goes(|missing| {
                let expected = [
                    Wall::Pids,
                    Wall::Mounts,
                    Wall::Ipc,
                    Wall::HostName,
                    Wall::Network,
                ];
                assert_eq!(missing, expected);
                assert_nobody(ORDINARY);
                let expected = [
                    "a signal to a process",
                    "a handle on a process",
                    "a service of the host",
                    "a socket by name",
                ];
                assert_eq!(
                    reached(&host),
                    beyond_landlock(landlock::version().unwrap(), &expected)
                );
            });
        },
    );
}

#[test]
fn no_user_namespaces_at_all_is_named_with_the_way_out() {
    alone(
        "walls::jail",
        "containers::no_user_namespaces_at_all_is_named_with_the_way_out",
        || {
            enter_container();
            std::fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
            keep(0);
            let jail = Jail::new(1);
            let missing = jail.fork(None, false).unwrap_err();
            assert_eq!(missing.wall, Wall::Pids);
            assert_eq!(missing.source.raw_os_error(), Some(libc::ENOSPC));
            assert!(missing.help().contains("user.max_user_namespaces"));
            as_far_as_it_goes(|missing| {
                assert!(!missing.contains(&Wall::Capabilities), "{missing:?}");
                assert!(!missing.contains(&Wall::Landlock), "{missing:?}");
                assert!(missing.contains(&Wall::User), "{missing:?}");
            });
        },
    );
}

#[test]
fn root_that_makes_no_namespaces_has_a_user_of_its_own_in_another() {
    alone(
        "walls::jail",
        "containers::root_that_makes_no_namespaces_has_a_user_of_its_own_in_another",
        || {
            let host = Host::new();
            keep(OF_DOCKER);
            let jail = Jail::new(std::process::id());
            assert!(jail.around && matches!(jail.user, User::Own(_)));
            let own = identity::user(std::process::id());
            let (wait, go) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let child = forked(&jail, |lifeline| {
                let missing = enter(&jail, lifeline, false).unwrap();
                assert!(missing.is_empty(), "{missing:?}");
                assert_eq!(reached(&host), [""; 0]);
                File::from(wait).read_exact(&mut [0]).unwrap();
            });
            let status = format!("/proc/{}/status", child.pid().as_raw_nonzero());
            let line = format!("Uid:\t{own}\t{own}\t{own}\t{own}");
            let is_itself = || read_to_string(&status).unwrap().contains(&line);
            while !is_itself() {
                std::thread::yield_now();
            }
            File::from(go).write_all(b"x").unwrap();
            succeeded(child);
        },
    );
}

#[test]
fn root_that_has_to_stay_root_is_told() {
    alone(
        "walls::jail",
        "containers::root_that_has_to_stay_root_is_told",
        || {
            keep(OF_DOCKER & !SETUID);
            let jail = Jail::new(1);
            succeeded(forked(&jail, |lifeline| {
                let missing = enter(&jail, lifeline, false).unwrap_err();
                assert_eq!(
                    missing.to_string(),
                    "the jail cannot have a user of its own"
                );
                assert!(missing.help().contains("CAP_SETUID"), "{}", missing.help());
            }));
            let missing: Vec<_> = survey()
                .unwrap()
                .into_iter()
                .map(|missing| missing.wall)
                .collect();
            assert_eq!(missing, [Wall::User]);
        },
    );
}

#[test]
fn no_more_processes_is_no_matter_of_namespaces() {
    alone(
        "walls::jail",
        "containers::no_more_processes_is_no_matter_of_namespaces",
        || {
            become_ordinary();
            let none = Some(0);
            let none = Rlimit {
                current: none,
                maximum: none,
            };
            setrlimit(Resource::Nproc, none).unwrap();
            for best_effort in [false, true] {
                let missing = Jail::new(1).fork(None, best_effort).unwrap_err();
                assert_eq!(missing.to_string(), "the jail cannot have a process");
                assert_eq!(missing.source.raw_os_error(), Some(libc::EAGAIN));
                assert!(missing.help().contains("ulimit -u"));
            }
        },
    );
}

#[test]
fn processes_beside_the_jail_do_not_keep_it_from_having_threads() {
    let test = "containers::processes_beside_the_jail_do_not_keep_it_from_having_threads";
    alone("walls::jail", test, || {
        forbid_namespaces();
        become_ordinary();
        // More than a jail may have threads of the kernel's.
        let _others: Vec<_> = (0..150)
            .map(|_| process::fork(0, None).unwrap())
            .map(|fork| match fork {
                Fork::Parent(other) => other,
                // SAFETY: waits for a signal, which comes with its parent's end.
                Fork::Child(_) => end(|| unsafe {
                    libc::pause();
                }),
            })
            .collect();
        as_far_as_it_goes(|_| {
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        });
    });
}

/// Makes a directory this process's root, with a file in it, and /proc if it is to have one.
fn change_root(directory: &Path, with_proc: bool) {
    let place = |name: &str| directory.join(name);
    std::fs::create_dir(place("etc")).unwrap();
    std::fs::write(place("etc/passwd"), "root").unwrap();
    if with_proc {
        std::fs::create_dir(place("proc")).unwrap();
        namespaces::unshare(libc::CLONE_NEWNS).unwrap();
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", flags).unwrap();
        mount_bind_recursive("/proc", place("proc")).unwrap();
    }
    std::os::unix::fs::chroot(directory).unwrap();
    std::env::set_current_dir("/").unwrap();
}

#[test]
fn a_chroot_is_left_as_a_root_is() {
    let directory = tempfile::tempdir().unwrap();
    alone(
        "walls::jail",
        "containers::a_chroot_is_left_as_a_root_is",
        || {
            let host = Host::new();
            change_root(directory.path(), true);
            assert!(File::open("/etc/passwd").is_ok());
            let jail = Jail::new(std::process::id());
            succeeded(forked(&jail, |lifeline| {
                let missing = enter(&jail, lifeline, false).unwrap();
                let missing: Vec<_> = missing.iter().map(|missing| missing.wall).collect();
                // The kernel gives none within a chroot.
                assert_eq!(missing, [Wall::UserNamespace]);
                assert_eq!(reached(&host), [""; 0]);
            }));
            // Not by Landlock alone.
            succeeded(forked(&jail, |_| {
                let mut walls = Walls {
                    missing: Vec::new(),
                    best_effort: false,
                };
                walls.build_namespaces(None).unwrap();
                let error = File::open("/etc/passwd").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
                assert_eq!(std::fs::read_dir("/").unwrap().count(), 0);
                assert_eq!(std::fs::read_dir("/../..").unwrap().count(), 0);
            }));
        },
    );
}

#[test]
fn a_chroot_without_proc_is_told_by_that_name() {
    let directory = tempfile::tempdir().unwrap();
    alone(
        "walls::jail",
        "containers::a_chroot_without_proc_is_told_by_that_name",
        || {
            let host = Host::new();
            change_root(directory.path(), false);
            let jail = Jail::new(std::process::id());
            succeeded(forked(&jail, |lifeline| {
                let missing = enter(&jail, lifeline, false).unwrap_err();
                assert_eq!(missing.wall, Wall::Descriptors);
                assert!(missing.help().contains("mount /proc"));
            }));
            as_far_as_it_goes(|missing| {
                assert_eq!(missing, [Wall::Descriptors, Wall::UserNamespace]);
                assert_eq!(reached(&host), [""; 0]);
            });
        },
    );
}
