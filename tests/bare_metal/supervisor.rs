//! The process beside the VM's: the rights of its threads, and its end.

use crate::cli::{Running, kvmlet, run};
use crate::harness::{Test, deadline, patience::eventually};
use crate::ports::{expect, lines, on_own_host, serving};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

pub const TESTS: &[Test] = &[
    ("who_serves_strangers_has_no_rights", rights),
    ("who_serves_strangers_cannot_be_traced_by_its_user", traced),
    (
        "a_supervisor_that_is_killed_while_its_vm_enters_the_jail_takes_it_along",
        killed_early,
    ),
];

/// What the threads of the supervisor may do, once its VM runs.
fn rights() {
    on_own_host(|| {
        let (vm, _output, _errors) = serving(&["-p", "8080:80"]);
        let tasks = format!("/proc/{}/task", vm.id());
        // The guest may be quicker.
        eventually("rights are laid down", || {
            let tasks = std::fs::read_dir(&tasks).unwrap().flatten();
            let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
            let all: Vec<String> = tasks.map(|task| read(task.path().join("status"))).collect();
            all.iter()
                .all(|status| status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"))
                && all
                    .iter()
                    .any(|status| status.contains("CapPrm:\t0000000000000000"))
        });
        let mut proxies = 0;
        for task in std::fs::read_dir(tasks).unwrap() {
            let task = task.unwrap().path();
            let read = |file: &str| std::fs::read_to_string(task.join(file)).unwrap();
            let (name, status) = (read("comm"), read("status"));
            let field = |key: &str| {
                let mut lines = status.lines();
                let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
                line.trim_start_matches(':').trim().to_owned()
            };
            let capabilities = u64::from_str_radix(&field("CapPrm"), 16).unwrap();
            // linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_ADMIN.
            let most = match name.trim() {
                "net-proxy" => 0,
                "net-watch" => 1 << 12,
                _ => 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 12,
            };
            proxies += usize::from(most == 0);
            let users = field("Uid");
            let is_root = users.split_whitespace().any(|user| user == "0");
            assert_eq!(is_root, most != 0, "{name}: {users}");
            // Who is the user of one thread may signal the process: it must be nobody's.
            let number = task.file_name().unwrap().to_str().unwrap();
            let kill = [
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "kill",
                "-0",
                number,
            ];
            let allowed = run(Command::new("setpriv").args(kill)).status.success();
            assert!(!allowed, "{name}");
            assert_eq!(capabilities & !most, 0, "{name}");
            assert_eq!(
                (&*field("NoNewPrivs"), &*field("Seccomp")),
                ("1", "2"),
                "{name}"
            );
        }
        assert_eq!(proxies, 1);
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
            let vm =
                || -> Option<u32> { std::fs::read_to_string(&children).ok()?.trim().parse().ok() };
            eventually("there is a process for the VM", || vm().is_some());
            let process = vm().unwrap();
            let status = format!("/proc/{process}/status");
            eventually("it has a user of its own", || {
                let status = std::fs::read_to_string(&status).unwrap_or_default();
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

/// Threads have one memory: who may trace the one without rights would have those of all. Here a user has the right to
/// make interfaces, as of a service, and another process of that user has not.
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
        let proxy = crate::jail::thread(vm.id() as i32, "net-proxy");
        eventually("its rights are gone", || {
            let status = std::fs::read_to_string(format!("/proc/{proxy}/status")).unwrap();
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
