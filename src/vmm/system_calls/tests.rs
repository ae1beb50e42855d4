//! Each kind of thread tries what no list has.

use super::*;
use crate::alone::end;
use attempts::{ATTEMPTS, Attempt, HARMLESS, Host, UNLIMITED};
use kvmlet_sys::seccomp::{Check, EXIT_CODE, Rule, elsewhere, end_at_panic};
use std::io::Read;
use std::time::Duration;

#[path = "../../host/walls/jail/attempts.rs"]
#[allow(dead_code)] // part of it is for the jail
mod attempts;

/// Runs `body` in a process with one thread and no more open than it needs.
fn alone(test: &str, body: impl FnOnce()) {
    crate::alone::alone(&format!("system_calls::tests::{test}"), body);
}

/// Runs an attempt in a process of its own whose only thread is sealed; returns its exit code and what it
/// said.
fn sealed(kind: ThreadKind, host: &Host, attempt: Attempt) -> (i32, String) {
    sealed_beside(
        kind,
        |_| (),
        || {
            attempt(host);
        },
    )
}

/// The same, while `beside` does something to that process, which is given by its number.
fn sealed_beside(kind: ThreadKind, beside: impl FnOnce(i32), act: impl FnOnce()) -> (i32, String) {
    let (read, write) = rustix::pipe::pipe().unwrap();
    // SAFETY: the only thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        rustix::stdio::dup2_stderr(&write).unwrap();
        end(|| {
            rustix::thread::set_name(c"probe").unwrap();
            Filters::new(&[kind]).unwrap().seal(kind).unwrap();
            act();
        });
    }
    drop(write);
    beside(pid);
    let mut said = String::new();
    std::fs::File::from(read).read_to_string(&mut said).unwrap();
    let mut status = 0;
    // SAFETY: stores a number.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    let code = match libc::WIFEXITED(status) {
        true => libc::WEXITSTATUS(status),
        false => -libc::WTERMSIG(status),
    };
    (code, said)
}

#[test]
fn no_list_has_a_way_out() {
    alone("no_list_has_a_way_out", || {
        let host = Host::new();
        for kind in ThreadKind::ALL {
            for (what, attempt) in ATTEMPTS.iter().chain(HARMLESS).chain(UNLIMITED) {
                let (code, said) = sealed(kind, &host, *attempt);
                assert_eq!(code, i32::from(EXIT_CODE), "{kind:?}: {what}: {said}");
                assert!(
                    said.starts_with("kvmlet: thread `probe` made the system call `"),
                    "{said}"
                );
            }
        }
    });
}

#[test]
fn the_message_names_thread_and_call() {
    alone("the_message_names_thread_and_call", || {
        let host = Host::new();
        let open = ATTEMPTS
            .iter()
            .find(|(what, _)| *what == "a file of the host");
        let (code, said) = sealed(ThreadKind::Rng, &host, open.unwrap().1);
        assert_eq!(code, 159);
        // C libraries differ in which they open files by.
        let calls = ["`openat` (257)", "`open` (2)"];
        let told = |call| said.contains(&format!("thread `probe` made the system call {call}"));
        assert!(calls.iter().any(told), "{said}");
    });
}

#[test]
fn a_panic_is_told_and_ends_the_process() {
    alone("a_panic_is_told_and_ends_the_process", || {
        let host = Host::new();
        for kind in ThreadKind::ALL {
            let (code, said) = sealed(kind, &host, |_| {
                end_at_panic(125);
                panic!("for {}", "once")
            });
            assert_eq!(code, 125, "{said}");
            assert!(
                said.starts_with("kvmlet: a bug: thread `probe` panicked at src/"),
                "{said}"
            );
            assert!(said.ends_with("for once\n"), "{said}");
        }
    });
}

#[test]
fn arguments_count() {
    alone("arguments_count", || {
        let host = Host::new();
        let run = |kind, attempt| sealed(kind, &host, attempt).0;
        // SAFETY: requests of something that is not a descriptor.
        let kvm_run: Attempt = |_| unsafe { libc::ioctl(-1, 0xae80) }.into();
        // SAFETY: as above.
        let sti: Attempt = |_| unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) }.into();
        assert_eq!(run(ThreadKind::Vcpu, kvm_run), 0);
        assert_eq!(run(ThreadKind::Block, kvm_run), 159);
        for kind in ThreadKind::ALL {
            assert_eq!(run(kind, sti), 159);
        }
        // SAFETY: signal 0 only asks.
        let own: Attempt = |_| unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), 1, 0) };
        // SAFETY: as above.
        let init: Attempt = |_| unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) };
        assert_eq!(run(ThreadKind::Vcpu, own), 0);
        assert_eq!(run(ThreadKind::Vcpu, init), 159);
    });
}

/// VMs of one user can have a network namespace in common: in it they find each other by sockets only, which may come
/// from these calls, or through rings that are made by them.
#[test]
fn no_list_has_a_way_to_a_socket() {
    let ways = [
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_bind,
        libc::SYS_connect,
        libc::SYS_listen,
        libc::SYS_accept,
        libc::SYS_accept4,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_register,
        libc::SYS_pidfd_getfd,
        libc::SYS_setns,
    ];
    for kind in ThreadKind::ALL {
        let found = rules(kind).find(|rule| ways.contains(&rule.call));
        assert!(found.is_none(), "{kind:?}: {found:?}");
    }
}

#[test]
fn lists_are_short() {
    // Firecracker's: 27 for a vCPU, 50 for the loop that serves all devices.
    const MOST: usize = 27;
    /// What reads a vCPU's state when it is saved, and nothing else does.
    const SAVING: usize = 9;
    for kind in ThreadKind::ALL {
        let limit = match kind {
            ThreadKind::Vcpu => MOST + SAVING,
            _ => 50,
        };
        let own = shared_rules(kind).chain(own_rules(kind));
        assert!(own.count() <= limit, "{kind:?}");
    }
}

#[test]
fn what_other_hosts_call_is_allowed_to_all() {
    alone("what_other_hosts_call_is_allowed_to_all", || {
        for kind in ThreadKind::ALL {
            let (code, said) = sealed_beside(
                kind,
                |_| (),
                || {
                    for elsewhere in elsewhere() {
                        let Rule { call, check } = elsewhere.rule;
                        let mut arguments = [0_u64; 4];
                        if let Check::Equal(place, value) = check {
                            arguments[usize::from(place)] = value.into();
                        }
                        let [a, b, c, d] = arguments;
                        // SAFETY: nulls and nothings: each call refuses them, or has nothing to do.
                        unsafe { libc::syscall(call, a, b, c, d) };
                    }
                },
            );
            assert_eq!(code, 0, "{kind:?}: {said}");
        }
    });
}

#[test]
fn a_wait_goes_on_after_a_stop() {
    /// Stops a process that waits in `futex`, and lets it go on.
    fn stop_and_continue(process: i32) {
        let path = format!("/proc/{process}/syscall");
        let waits = format!("{} ", libc::SYS_futex);
        while !std::fs::read_to_string(&path).unwrap().starts_with(&waits) {
            std::thread::yield_now();
        }
        let mut status = 0;
        // SAFETY: signals to a child of this process, and waiting for what the first does.
        unsafe {
            assert_eq!(libc::kill(process, libc::SIGSTOP), 0);
            let stopped = libc::waitpid(process, &mut status, libc::WUNTRACED);
            assert_eq!((stopped, libc::WIFSTOPPED(status)), (process, true));
            assert_eq!(libc::kill(process, libc::SIGCONT), 0);
        }
    }
    alone("a_wait_goes_on_after_a_stop", || {
        for kind in ThreadKind::ALL {
            let (code, said) = sealed_beside(kind, stop_and_continue, || {
                let (mutex, changed) = (std::sync::Mutex::new(()), std::sync::Condvar::new());
                let patience = Duration::from_millis(200);
                let waits = |_: &mut ()| true;
                let wait = changed.wait_timeout_while(mutex.lock().unwrap(), patience, waits);
                assert!(wait.unwrap().1.timed_out());
            });
            assert_eq!(code, 0, "{kind:?}: {said}");
        }
    });
}
