//! The processes beside the VM's, the supervisor and the one that serves strangers: their rights, and their ends.

use crate::cli::{Running, kill, kvmlet, run, vm_process_if_any};
use crate::harness::{Test, deadline, patience::eventually};
use crate::ports::{expect, lines, on_own_host, serving};
use std::fs::read_to_string;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

pub const TESTS: &[Test] = &[
    ("who_serves_strangers_has_no_rights", rights),
    ("who_serves_strangers_cannot_be_traced_by_its_user", traced),
    ("who_serves_strangers_ends_with_either_of_the_others", ends),
    ("a_vm_goes_on_without_who_serves_strangers", unserved),
    ("code_that_a_start_has_run_is_memory_no_more", settled),
    (
        "a_supervisor_that_is_killed_while_its_vm_enters_the_jail_takes_it_along",
        killed_early,
    ),
];

/// The process that serves strangers for a supervisor.
pub fn server(supervisor: u32) -> u32 {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let mut found = None;
    eventually("there is a process for strangers", || {
        let children = read_to_string(&children).unwrap();
        let name = |pid: &&str| read_to_string(format!("/proc/{pid}/comm"));
        let is_server = |pid: &&str| name(pid).is_ok_and(|name| name.trim() == "net-proxy");
        let server = children.split_whitespace().find(is_server);
        found = server.map(|pid| pid.parse().unwrap());
        found.is_some()
    });
    found.unwrap()
}

/// Of its program's code, a process has this part mapped: a hundredth is 1.
fn code_mapped(process: i32) -> u64 {
    let maps = read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.contains(" r-xp "));
    let mut kib = |key| -> u64 {
        let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (all, mapped) = (kib("Size:"), kib("Rss:"));
    100 * mapped / all
}

/// Soon after the start, and the VM goes on.
fn settled() {
    let mut vm = Running::spawn(kvmlet("power_button").args(["--cmdline", "code=7"]));
    let mut inner = None;
    eventually("its VM runs", || {
        inner = vm_process_if_any(&vm);
        inner.is_some()
    });
    for process in [vm.id() as i32, inner.unwrap()] {
        eventually("the code of its start is left to the page cache", || {
            code_mapped(process) < 45
        });
    }
    kill(vm.id() as i32, libc::SIGTERM);
    assert_eq!(vm.wait().unwrap().code(), Some(7));
}

fn has_ended(process: u32) -> bool {
    let status = read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

/// What the supervisor, and the process that serves strangers, may do once the VM runs.
fn rights() {
    on_own_host(|| {
        let (vm, _output, _errors) = serving(&["-p", "8080:80"]);
        // linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_ADMIN.
        let of_the_end: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 12;
        for (process, most) in [(vm.id(), of_the_end), (server(vm.id()), 0)] {
            let status = || read_to_string(format!("/proc/{process}/status")).unwrap();
            // The guest may be quicker.
            eventually("rights are laid down", || {
                let status = status();
                status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2")
            });
            let status = status();
            let field = |key: &str| {
                let mut lines = status.lines();
                let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
                line.trim_start_matches(':').trim().to_owned()
            };
            assert_eq!(field("Threads"), "1");
            for set in ["CapPrm", "CapInh", "CapAmb"] {
                let capabilities = u64::from_str_radix(&field(set), 16).unwrap();
                assert_eq!(capabilities & !most, 0, "{set} of {process}");
            }
            let users = field("Uid");
            let is_root = users.split_whitespace().any(|user| user == "0");
            assert_eq!(is_root, most != 0, "{process}: {users}");
            // It must be a user that is nobody's.
            let number = process.to_string();
            let kill = [
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "kill",
                "-0",
                &number,
            ];
            let allowed = run(Command::new("setpriv").args(kill)).status.success();
            assert!(!allowed, "{process}");
        }
        has_only_sockets(server(vm.id()));
    });
}

/// Nothing of the supervisor's, such as taps, notes and their locks, and handles of processes.
fn has_only_sockets(server: u32) {
    let descriptors = std::fs::read_dir(format!("/proc/{server}/fd")).unwrap();
    for descriptor in descriptors.flatten() {
        let number: u32 = descriptor.file_name().to_str().unwrap().parse().unwrap();
        let target = std::fs::read_link(descriptor.path()).unwrap();
        let target = target.to_str().unwrap();
        let fits = match number {
            // What its supervisor ends it by, and says by it.
            0..=2 => target.starts_with("pipe:"),
            _ => [
                "socket:",
                "anon_inode:[eventpoll]",
                "anon_inode:[pidfd]",
                "pipe:",
            ]
            .iter()
            .any(|kind| target.starts_with(kind)),
        };
        assert!(fits, "{number} is {target}");
    }
}

fn ends() {
    on_own_host(|| {
        // Its own end, first; then that of its VM, and that of its supervisor.
        for who in ["nobody", "VM", "supervisor"] {
            let (mut vm, _output, _errors) = serving(&["-p", "8080:80"]);
            let server = server(vm.id());
            let process = vm_process_if_any(&vm).unwrap();
            match who {
                "VM" => kill(process, libc::SIGKILL),
                "supervisor" => kill(vm.id() as i32, libc::SIGKILL),
                _ => kill(vm.id() as i32, libc::SIGTERM),
            }
            let status = vm.wait().unwrap();
            if who != "supervisor" {
                let expected = if who == "VM" { 137 } else { 143 };
                assert_eq!(status.code(), Some(expected));
                assert!(has_ended(server), "it was waited for");
                std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
            }
            eventually("all have ended", || {
                has_ended(server) && has_ended(process as u32)
            });
        }
    });
}

/// It is told, and clients are refused rather than kept waiting.
fn unserved() {
    on_own_host(|| {
        let (mut vm, _output, errors) = serving(&["-p", "8080:80"]);
        let connect = || std::net::TcpStream::connect("127.0.0.1:8080");
        connect().unwrap();
        kill(server(vm.id()) as i32, libc::SIGKILL);
        let said = std::iter::from_fn(|| errors.recv_timeout(deadline()).ok())
            .find(|line| line.contains("published ports serve no clients"));
        assert!(said.unwrap().contains("was killed by signal 9"));
        let refused = connect().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(vm.try_wait().unwrap().is_none());
        kill(vm.id() as i32, libc::SIGTERM);
        assert_eq!(vm.wait().unwrap().code(), Some(143));
    });
}

/// The kernel forgets whom to kill with the supervisor when the VM's process changes its user; and it lets no thread kill
/// that does not have the right to. Both met in one of forty kills of the first 80 ms.
fn killed_early() {
    on_own_host(|| {
        for _ in 0..30 {
            let mut command = kvmlet("net_services");
            command
                .args(["--cmdline", "mmio=0xd0002000", "-p", "8080:80"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut supervisor = Running::spawn(&mut command);
            let children = format!("/proc/{0}/task/{0}/children", supervisor.id());
            let vm = || -> Option<u32> {
                read_to_string(&children)
                    .ok()?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            };
            eventually("there is a process for the VM", || vm().is_some());
            let process = vm().unwrap();
            let status = format!("/proc/{process}/status");
            eventually("it has a user of its own", || {
                let status = read_to_string(&status).unwrap_or_default();
                !status.contains("Uid:\t0\t")
            });
            supervisor.kill().unwrap();
            let mut output = supervisor.stdout.take().unwrap();
            let (tell, ended) = channel();
            // The pipe ends when the last process that could write to it has ended.
            std::thread::spawn(move || {
                let _ = output.read_to_end(&mut Vec::new());
                let _ = tell.send(());
            });
            let has_ended = ended.recv_timeout(deadline()).is_ok();
            if !has_ended {
                // SAFETY: a process that this test has started, by way of its supervisor.
                unsafe { libc::kill(process as i32, libc::SIGKILL) };
            }
            assert!(has_ended, "the VM goes on without its supervisor");
        }
    });
}

/// It has the user's number where that is not root, so no other process of that user's may take it over. Here a user has
/// the right to make interfaces, as of a service, and another process of that user has not.
fn traced() {
    const USER: u32 = 23_005;
    on_own_host(|| {
        std::fs::create_dir("/run/service").unwrap();
        std::os::unix::fs::chown("/run/service", Some(USER), Some(USER)).unwrap();
        for (node, number, device) in [
            ("/run/kvm", (10, 232), "/dev/kvm"),
            ("/run/tun", (10, 200), "/dev/net/tun"),
        ] {
            crate::hostile::scene::make_device(Path::new(node), number).unwrap();
            rustix::mount::mount_bind(node, device).unwrap();
        }
        let mut service = Command::new("setpriv");
        let user = ["--reuid", "--regid"].map(|flag| format!("{flag}={USER}"));
        service
            .args(user)
            .args([
                "--clear-groups",
                "--inh-caps=+net_admin",
                "--ambient-caps=+net_admin",
            ])
            .arg("--")
            .args([
                env!("CARGO_BIN_EXE_kvmlet"),
                "boot",
                "-p",
                "8080:80",
                "--kernel",
            ])
            .arg(crate::harness::program("net_services"))
            .args(["--cmdline", "mmio=0xd0002000"])
            .env("XDG_RUNTIME_DIR", "/run/service")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut vm = Running::spawn(&mut service);
        expect(&lines(vm.stdout.take().unwrap()), "serving");
        let proxy = server(vm.id()) as i32;
        eventually("its rights are gone", || {
            let status = read_to_string(format!("/proc/{proxy}/status")).unwrap();
            status.contains("CapPrm:\t0000000000000000")
        });
        // SAFETY: between fork and exec system calls are made, which take numbers.
        let attempt = move || unsafe {
            libc::setgroups(0, std::ptr::null());
            libc::setresgid(USER, USER, USER);
            libc::setresuid(USER, USER, USER);
            match libc::ptrace(libc::PTRACE_SEIZE, proxy, 0, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        };
        let mut command = Command::new("true");
        // SAFETY: as above.
        let attempt = unsafe { command.pre_exec(attempt) }.status();
        let refused = attempt.expect_err("it is traced");
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{refused}");
    });
}
