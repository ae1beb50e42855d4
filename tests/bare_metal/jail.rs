//! The jail and the lists of system calls around VMs that `kvmlet boot` starts.

use crate::cli::{Running, kvmlet, run, text, vm_process};
use crate::harness::{DEADLINE, Test, eventually};
use crate::packets::{enter_own_network, frame, packet_socket, tap};
use crate::virtio::{BLK, image};
use crate::watch::{Call, Seen, Watched};
use kvmlet::host::seccomp::{Check, Rule, own_rules, rules, shared_rules};
use kvmlet::host::thread::ThreadKind;
use std::fs::{read_dir, read_link, read_to_string};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("a_vm_without_a_terminal_is_jailed", jailed),
    ("a_jail_can_be_declined", declined),
    (
        "a_wall_that_cannot_be_had_is_an_error_or_told",
        missing_wall,
    ),
    ("a_forbidden_call_ends_the_vm_and_is_named", forbidden_call),
    ("each_entry_of_each_list_is_used", minimal_lists),
];

/// A guest that runs, and the process of its VM.
fn spinning(arguments: &[&str]) -> (Running, i32) {
    let mut command = kvmlet("spin");
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Running::spawn(&mut command);
    child.expect_two_bytes();
    let vm = vm_process(&child);
    (child, vm)
}

fn status(task: &str) -> String {
    read_to_string(format!("{task}/status")).unwrap()
}

fn tasks(pid: i32) -> Vec<String> {
    let entries = read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.map(|path| path.to_str().unwrap().into()).collect()
}

fn jailed() {
    let image = image();
    let disk = image.path().to_str().unwrap();
    let (_child, vm) = spinning(&["--disk", disk, "--cpus", "2"]);
    for kind in ["mnt", "pid", "ipc", "uts", "net", "user"] {
        let own = read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(read_link(format!("/proc/{vm}/ns/{kind}")).unwrap(), own);
    }
    let tasks = tasks(vm);
    for name in ["kvmlet", "rng", "vda.0", "vcpu0", "vcpu1"] {
        thread(vm, name);
    }
    for task in tasks {
        let status = status(&task);
        // A thread of the kernel's own, in the name of the process that runs a VM.
        if status.starts_with("Name:\tkvm-") {
            continue;
        }
        for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.lines().any(|have| have == line), "{line}: {status}");
        }
    }
    // What it holds: no directory, no file but its disk, no pipe or socket that it was not started with.
    let targets = |numbers: &dyn Fn(u32) -> bool| -> Vec<String> {
        let entries = read_dir(format!("/proc/{vm}/fd")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let number = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let paths = paths.filter(|path| numbers(number(path)));
        paths
            .map(|path| read_link(path).unwrap().to_str().unwrap().into())
            .collect()
    };
    let standard = targets(&|number| number <= 2);
    for target in targets(&|number| number > 2) {
        assert!(
            target.starts_with("anon_inode:") || target == disk || standard.contains(&target),
            "{target}"
        );
    }
}

fn declined() {
    let (_child, vm) = spinning(&["--no-jail"]);
    let own = read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(read_link(format!("/proc/{vm}/ns/mnt")).unwrap(), own);
    let tasks = tasks(vm);
    assert!(
        tasks
            .iter()
            .all(|task| status(task).contains("Seccomp:\t0"))
    );
}

/// Runs kvmlet where no network namespace can be made.
fn without_network_namespaces(arguments: &[&str]) -> std::process::Output {
    let mut command = kvmlet("ready");
    command.args(arguments);
    let enter = || {
        // SAFETY: takes flags only.
        match unsafe { libc::unshare(libc::CLONE_NEWUSER) } {
            0 => {}
            _ => return Err(std::io::Error::last_os_error()),
        }
        for (file, text) in [
            ("/proc/self/setgroups", "deny"),
            ("/proc/self/uid_map", "0 0 1"),
            ("/proc/self/gid_map", "0 0 1"),
            ("/proc/sys/user/max_net_namespaces", "0"),
        ] {
            std::fs::write(file, text)?;
        }
        Ok(())
    };
    // SAFETY: the child has one thread, and the allocator's lock is free in it (glibc sees to that).
    unsafe { command.pre_exec(enter) };
    run(&mut command)
}

fn missing_wall() {
    let asked = without_network_namespaces(&["--jail"]);
    let message = text(&asked.stderr);
    assert_eq!(asked.status.code(), Some(125), "{message}");
    for part in [
        "error: the jail cannot have a network namespace",
        "caused by: no space left on device",
        "help: ",
        "--best-effort",
    ] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    // It is the default as far as it goes.
    for arguments in [&["--jail", "--best-effort"][..], &[]] {
        let output = without_network_namespaces(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{message}");
        assert!(
            message.contains("the jail cannot have a network namespace: No space left"),
            "{message}"
        );
    }
}

/// A thread of that name, by its number.
fn thread(pid: i32, name: &str) -> i32 {
    let found = tasks(pid)
        .into_iter()
        .find(|task| read_to_string(format!("{task}/comm")).unwrap().trim() == name);
    found.unwrap().rsplit('/').next().unwrap().parse().unwrap()
}

/// Makes a thread that sleeps in a system call make another one instead, as whoever takes it over could.
fn take_over(thread: i32, call: libc::c_long) {
    let check =
        |result: libc::c_long| assert_ne!(result, -1, "{}", std::io::Error::last_os_error());
    // SAFETY: the structures have the sizes that ptrace(2) and waitpid(2) store; all acts on the other process.
    unsafe {
        check(libc::ptrace(libc::PTRACE_ATTACH, thread, 0, 0));
        let mut status = 0;
        check(libc::waitpid(thread, &mut status, libc::__WALL).into());
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        check(libc::ptrace(
            libc::PTRACE_GETREGS,
            thread,
            0,
            &raw mut registers,
        ));
        // Back onto the instruction that made the call, which is not to be made again.
        registers.rip -= 2;
        registers.rax = call as u64;
        registers.orig_rax = u64::MAX;
        registers.rdi = 0;
        registers.rsi = 0;
        check(libc::ptrace(
            libc::PTRACE_SETREGS,
            thread,
            0,
            &raw const registers,
        ));
        check(libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0));
    }
}

fn forbidden_call() {
    for (name, call, called) in [
        ("rng", libc::SYS_openat, "openat"),
        ("kvmlet", libc::SYS_execve, "execve"),
        ("vda.0", libc::SYS_socket, "socket"),
        // Allowed to others only.
        ("rng", libc::SYS_io_uring_enter, "io_uring_enter"),
    ] {
        let image = image();
        let (mut child, vm) = spinning(&["--disk", image.path().to_str().unwrap()]);
        take_over(thread(vm, name), call);
        assert_eq!(child.wait().unwrap().code(), Some(159));
        let mut message = String::new();
        let stderr = child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut message).unwrap();
        let expected = format!("thread `{name}` made the system call `{called}` ({call})");
        assert!(message.contains(&expected), "{message}");
    }
}

/// The process of a VM whose threads have all been sealed.
fn running_vm(child: &Child) -> i32 {
    let pid = child.id();
    let path = format!("/proc/{pid}/task/{pid}/children");
    let vm = || read_to_string(&path).ok()?.trim().parse().ok();
    let sealed = |vm: i32| {
        let tasks = tasks(vm);
        tasks.len() > 1 && tasks.iter().all(|task| is_sealed(task))
    };
    eventually("its VM runs", || vm().is_some_and(sealed));
    vm().unwrap()
}

/// Under its own filter, and the one by which it is watched.
fn is_sealed(task: &str) -> bool {
    let status = read_to_string(format!("{task}/status")).unwrap_or_default();
    status.starts_with("Name:\tkvm-") || status.contains("Seccomp_filters:\t2")
}

/// Runs a VM and returns what its threads call once they are sealed.
fn watch(mut command: Command, exit_code: i32, act: impl FnOnce(&mut Child)) -> Seen {
    let output = tempfile::tempfile().unwrap();
    command.stdout(output.try_clone().unwrap());
    command.stderr(output.try_clone().unwrap());
    let mut watched = Watched::spawn(command);
    act(&mut watched.child);
    let status = watched.child.wait().unwrap();
    let mut output = output;
    let mut said = String::new();
    std::io::Seek::rewind(&mut output).unwrap();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(exit_code), "{said}");
    watched.seen()
}

fn with(name: &str, arguments: &[&str]) -> Command {
    let mut command = kvmlet(name);
    command.args(arguments);
    command
}

/// Each kind of thread by the names that its threads have.
fn kind(thread: &str) -> ThreadKind {
    match thread {
        "kvmlet" => ThreadKind::EventLoop,
        "rng" => ThreadKind::Rng,
        "balloon" => ThreadKind::Balloon,
        _ if thread.starts_with("vcpu") => ThreadKind::Vcpu,
        _ if thread.starts_with("vd") => ThreadKind::Block,
        _ if thread.starts_with("eth") => ThreadKind::Net,
        other => panic!("a thread that nobody knows: {other}"),
    }
}

fn allows(rule: &Rule, call: &Call) -> bool {
    let argument = |number: u8| call.arguments[usize::from(number)];
    rule.call == call.number
        && match rule.check {
            Check::None => true,
            Check::Equal(number, value) => argument(number) == value,
            Check::Without(number, bits) => argument(number) & bits == 0,
            // It is the first of its PID namespace.
            Check::OwnProcess(number) => argument(number) == 1,
        }
}

const KINDS: [ThreadKind; 6] = [
    ThreadKind::EventLoop,
    ThreadKind::Vcpu,
    ThreadKind::Block,
    ThreadKind::Net,
    ThreadKind::Rng,
    ThreadKind::Balloon,
];

/// What VMs call that do all that there is to do. They run confined: each call is on a list, or the VM ends with
/// 159. So what remains to be seen is that none on a list is unused: what only one kind of thread may call, by
/// that kind, and what several may, by one of them.
fn minimal_lists() {
    let scenarios = [
        endings, failures, alarms, consoles, balloon, disks, interfaces,
    ];
    let threads = scenarios.map(std::thread::spawn);
    let mut seen: Vec<(ThreadKind, Call)> = Vec::new();
    for thread in threads {
        for (name, calls) in thread.join().unwrap().into_iter().flatten() {
            seen.extend(calls.into_iter().map(|call| (kind(&name), call)));
        }
    }
    for (kind, call) in &seen {
        assert!(
            rules(*kind).any(|rule| allows(rule, call)),
            "{kind:?}: {call:?}"
        );
    }
    let mut unused: Vec<&Rule> = Vec::new();
    for kind in KINDS {
        let by_it = |rule: &Rule| (seen.iter()).any(|(by, call)| *by == kind && allows(rule, call));
        let by_any = |rule: &Rule| (seen.iter()).any(|(_, call)| allows(rule, call));
        unused.extend(own_rules(kind).filter(|rule| !by_it(rule)));
        unused.extend(shared_rules(kind).filter(|rule| !by_any(rule)));
    }
    assert!(unused.is_empty(), "entries that nothing needs: {unused:#?}");
}

fn endings() -> Vec<Seen> {
    let two = ["--cpus", "2"];
    let mut seen: Vec<Seen> = [
        ("power_off", 0),
        ("reset", 129),
        ("panic", 134),
        ("triple_fault", 139),
    ]
    .map(|(name, code)| watch(with(name, &two), code, |_| ()))
    .into();
    seen.push(watch(with("smp", &two), 0, |_| ()));
    seen.push(watch(with("mmio_nowhere", &[]), 0, |_| ()));
    seen
}

/// The end that a forbidden call is.
fn alarms() -> Vec<Seen> {
    let image = image();
    let arguments = ["--disk", image.path().to_str().unwrap()];
    let alarm = |name| {
        watch(with("spin", &arguments), 159, |child| {
            take_over(thread(running_vm(child), name), libc::SYS_openat);
        })
    };
    ["kvmlet", "rng", "vda.0"].map(alarm).into()
}

fn failures() -> Vec<Seen> {
    let mut seen = vec![watch(with("jump_nowhere", &[]), 125, |_| ())];
    if kvmlet::host::kvm::Execution::detect().unwrap() == kvmlet::host::kvm::Execution::Interpreted
    {
        seen.push(watch(with("bad_instruction", &[]), 125, |_| ()));
    }
    seen
}

/// Input, interrupts, statistics, and an end by a signal.
fn consoles() -> Vec<Seen> {
    let mut seen: Vec<Seen> = ["serial_echo", "serial_irq"]
        .map(|name| {
            let mut command = kvmlet(name);
            command.stdin(Stdio::piped());
            watch(command, 42, |child| {
                let text = "abc".repeat(1000) + "q";
                let mut input = child.stdin.take().unwrap();
                input.write_all(text.as_bytes()).unwrap();
            })
        })
        .into();
    let directory = tempfile::tempdir().unwrap();
    let stats = directory.path().join("stats.json");
    let arguments = ["--cpus", "2", "--stats", stats.to_str().unwrap()];
    seen.push(watch(with("spin", &arguments), 143, |child| {
        // SAFETY: the child has not been waited for, so the number is its own.
        let signal = |signal| unsafe { libc::kill(child.id() as i32, signal) };
        running_vm(child);
        signal(libc::SIGUSR1);
        eventually("statistics are written", || stats.exists());
        signal(libc::SIGTERM);
    }));
    seen
}

fn balloon() -> Vec<Seen> {
    let cmdline = "mmio=0xd0002000 pages=8192";
    let arguments = [
        "--memory",
        "64M",
        "--balloon",
        "size=8M",
        "--cmdline",
        cmdline,
    ];
    let mut command = with("virtio_balloon", &arguments);
    command.stdin(Stdio::piped());
    // Touch all, give back what is free, end.
    vec![watch(command, 0, |child| {
        child.stdin.take().unwrap().write_all(b"trq").unwrap();
    })]
}

fn disks() -> Vec<Seen> {
    let image = image();
    let path = image.path().to_str().unwrap();
    let disk = |keys: &str| format!("{path}{keys}");
    let rng = "mmio=0xd0001000";
    let mut seen = vec![watch(with("virtio_rng", &["--cmdline", rng]), 0, |_| ())];
    for keys in [
        "",
        ",io=sync",
        ",io=sync,cache=writethrough",
        ",iops=20,iops-burst=1",
    ] {
        let arguments = ["--cmdline", BLK, "--disk", &disk(keys)];
        seen.push(watch(with("virtio_blk", &arguments), 0, |_| ()));
    }
    for keys in ["", ",io=sync"] {
        let cmdline = format!("{BLK} first=2048 sectors=2048");
        let arguments = ["--cmdline", &cmdline, "--disk", &disk(keys)];
        seen.push(watch(with("virtio_blk_free", &arguments), 0, |_| ()));
        let cmdline = "devices=0xd0001000,0xd0002000";
        let arguments = ["--cmdline", cmdline, "--disk", &disk(keys)];
        seen.push(watch(with("virtio_malformed", &arguments), 0, |_| ()));
    }
    seen
}

fn interfaces() -> Vec<Seen> {
    if let Err(reason) = enter_own_network() {
        panic!("the list for interfaces cannot be tested: {reason}");
    }
    let mut seen = Vec::new();
    let arguments = ["--cmdline", BLK, "--net", "queues=2"];
    seen.push(watch(with("virtio_net_control", &arguments), 0, |_| ()));
    let arguments = ["--cmdline", "devices=0xd0002000", "--net"];
    seen.push(watch(with("virtio_malformed", &arguments), 0, |_| ()));
    let limits = "rx-packets=50,tx-packets=50";
    let arguments = ["--cmdline", BLK, "--net", limits];
    seen.push(watch(with("virtio_net", &arguments), 0, |_| send_frames()));
    seen
}

/// Sends some frames to the guest, which wait for it in the tap, and the one that ends it.
fn send_frames() {
    eventually("there is a tap", || {
        let interfaces = read_to_string("/proc/thread-self/net/dev").unwrap();
        interfaces.contains("kvmlet")
    });
    let mut socket = packet_socket(&tap());
    let mut send = |payload: &[u8]| {
        let frame = frame(payload);
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = socket.write_all(&frame) {
            // It is not up yet.
            assert!(Instant::now() < deadline, "{error}");
        }
    };
    (0..20).for_each(|number| send(&[number; 100]));
    send(b"quit, and fill the frame up to the least size that it has");
}
