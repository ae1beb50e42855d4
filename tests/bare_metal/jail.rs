//! The jail around VMs that `kvmlet boot` starts, as seen from outside.

use crate::cli::{Running, kill, kvmlet, run, text, vm_process, vm_process_if_any};
use crate::harness::{Test, patience::eventually};
use crate::virtio::image;
use std::fs::{read_dir, read_link, read_to_string};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("a_vm_without_a_terminal_is_jailed", jailed),
    (
        "outputs_that_are_files_do_not_let_disks_grow",
        outputs_in_files,
    ),
    ("a_jail_can_be_declined", declined),
    ("a_file_says_how_a_vm_is_held", said_in_a_file),
    (
        "a_wall_that_cannot_be_had_is_an_error_or_told",
        missing_wall,
    ),
    ("a_forbidden_call_ends_the_vm_and_is_named", forbidden_call),
    ("a_chroot_without_proc_is_told_as_that", chroot_without_proc),
];

/// A guest that runs, and the process of its VM.
pub fn spinning(arguments: &[&str]) -> (Running, i32) {
    let child = running(arguments);
    let vm = vm_process(&child);
    (child, vm)
}

/// A kvmlet whose guest has begun to run and will not end.
fn running(arguments: &[&str]) -> Running {
    let mut command = kvmlet("spin");
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Running::spawn(&mut command);
    child.expect_two_bytes();
    child
}

fn status(task: &str) -> String {
    read_to_string(format!("{task}/status")).unwrap()
}

pub fn tasks(pid: i32) -> Vec<String> {
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
    assert_limits(vm);
    // What it holds: no directory, no file but its disk and what tells which of its pages were written to (and not where they
    // are), no pipe or socket that it was not started with, but for the socket to its supervisor.
    let targets = |numbers: &dyn Fn(u32) -> bool| -> Vec<String> {
        let entries = read_dir(format!("/proc/{vm}/fd")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let number = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let paths = paths.filter(|path| numbers(number(path)));
        paths
            .filter_map(|path| Some(read_link(path).ok()?.to_str()?.into()))
            .collect()
    };
    let standard = targets(&|number| number <= 2);
    eventually("nothing else is open", || {
        let others = targets(&|number| number > 2).into_iter().filter(|target| {
            let is_known = target.starts_with("anon_inode:") || target.ends_with("/pagemap");
            !is_known && target != disk && !standard.contains(target)
        });
        let others: Vec<String> = others.collect();
        matches!(&others[..], [socket] if socket.starts_with("socket:"))
    });
}

/// A file that may grow is the supervisor's: the limit of the VM's process is the size of its disk.
fn outputs_in_files() {
    let image = image();
    let directory = tempfile::tempdir().unwrap();
    let [out, err] = ["out", "err"].map(|name| directory.path().join(name));
    let create = |path: &Path| std::fs::File::create(path).unwrap();
    let mut command = kvmlet("spin");
    command
        .args(["--disk", image.path().to_str().unwrap()])
        .stdout(create(&out))
        .stderr(create(&err));
    let child = Running::spawn(&mut command);
    eventually("the guest has written", || {
        std::fs::metadata(&out).unwrap().len() >= 2
    });
    let vm = vm_process(&child);
    assert_limits(vm);
    for number in [1, 2] {
        let target = read_link(format!("/proc/{vm}/fd/{number}")).unwrap();
        assert!(target.to_str().unwrap().starts_with("pipe:"), "{target:?}");
    }
    drop(child);
    // All comes, and statistics behind what the guest has written.
    let file = create(&out);
    let mut command = kvmlet("ready");
    command
        .args(["-vv", "--stats", "-"])
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    assert!(command.status().unwrap().success());
    let written = read_to_string(&out).unwrap();
    let places = ["the guest was entered", "ready\n", "\"start\""];
    let [_, ready, statistics] = places.map(|part| written.find(part).expect(&written));
    assert!(ready < statistics, "{written}");
}

/// It gets little more than it has: a disk of 8 MiB, 128 MiB of RAM.
fn assert_limits(vm: i32) {
    let limits = read_to_string(format!("/proc/{vm}/limits")).unwrap();
    let disk = 8 << 20;
    let memory = 128 << 20;
    for (name, least, most) in [
        ("Max file size", disk, disk),
        ("Max data size", memory, 3 * memory),
        ("Max address space", memory, 4 * memory),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let mut words = line[name.len()..].split_whitespace();
        let hard: u64 = words.nth(1).unwrap().parse().unwrap();
        assert!((least..=most).contains(&hard), "{line}");
    }
}

fn declined() {
    let child = running(&["--no-jail"]);
    assert_eq!(vm_process_if_any(&child), None, "one process is enough");
    let vm = child.id() as i32;
    let own = read_link("/proc/self/ns/mnt").unwrap();
    assert_eq!(read_link(format!("/proc/{vm}/ns/mnt")).unwrap(), own);
    let tasks = tasks(vm);
    assert!(
        tasks
            .iter()
            .all(|task| status(task).contains("Seccomp:\t0"))
    );
}

/// Walls and statistics are said in a configuration file as on a command line, which comes first.
fn said_in_a_file() {
    let place = tempfile::tempdir().unwrap();
    let (file, stats) = (place.path().join("vm.json"), place.path().join("stats"));
    let json = serde_json::json!({"jail": "off", "best_effort": true, "stats": stats});
    std::fs::write(&file, json.to_string()).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, is_jailed) in [(&[][..], false), (&["--jail"], true)] {
        let mut child = running(&[&["--config", file], arguments].concat());
        assert_eq!(vm_process_if_any(&child).is_some(), is_jailed);
        kill(child.id() as i32, libc::SIGQUIT);
        child.wait().unwrap();
        assert!(
            std::fs::metadata(&stats).unwrap().len() > 2,
            "{arguments:?}"
        );
        std::fs::remove_file(&stats).unwrap();
    }
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
pub fn thread(pid: i32, name: &str) -> i32 {
    let found = tasks(pid)
        .into_iter()
        .find(|task| read_to_string(format!("{task}/comm")).unwrap().trim() == name);
    found.unwrap().rsplit('/').next().unwrap().parse().unwrap()
}

/// Makes a thread, once it is in a system call, make another one instead, as whoever takes it over could.
pub fn take_over(thread: i32, call: libc::c_long) {
    eventually("the thread is in a system call", || {
        stop_and_change(thread, call)
    });
}

/// False if the thread was not in a system call: then it goes on as if nothing had been. So it is when it is gone.
pub fn stop_and_change(thread: i32, call: libc::c_long) -> bool {
    let check =
        |result: libc::c_long| assert_ne!(result, -1, "{}", std::io::Error::last_os_error());
    // SAFETY: the structures have the sizes that ptrace(2) and waitpid(2) store; all acts on the other process.
    unsafe {
        if libc::ptrace(libc::PTRACE_ATTACH, thread, 0, 0) == -1 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
            return false;
        }
        let mut status = 0;
        check(libc::waitpid(thread, &mut status, libc::__WALL).into());
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        check(libc::ptrace(
            libc::PTRACE_GETREGS,
            thread,
            0,
            &raw mut registers,
        ));
        let in_a_call = registers.orig_rax as i64 >= 0;
        if in_a_call {
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
        }
        check(libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0));
        in_a_call
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
        eventually("the VM ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(159));
        let mut message = String::new();
        let stderr = child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut message).unwrap();
        let expected = format!("thread `{name}` made the system call `{called}` ({call})");
        assert!(message.contains(&expected), "{message}");
    }
}

fn chroot_without_proc() {
    let root = tempfile::tempdir().unwrap();
    let place = |name: &str| root.path().join(name);
    for directory in ["dev", "run", "tmp"] {
        std::fs::create_dir(place(directory)).unwrap();
    }
    std::fs::copy(env!("CARGO_BIN_EXE_kvmlet"), place("kvmlet")).unwrap();
    std::fs::copy(crate::harness::program("ready"), place("ready")).unwrap();
    use rustix::fs::{CWD, FileType, Mode, mknodat, stat};
    let kvm = stat("/dev/kvm").unwrap().st_rdev;
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, place("dev/kvm"), FileType::CharacterDevice, mode, kvm).unwrap();
    let boot = |arguments: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg(root.path());
        command.args(["/kvmlet", "boot", "--kernel", "/ready"]);
        let output = run(command.args(arguments).stdin(Stdio::null()));
        (output.status.code(), text(&output.stderr))
    };
    let (code, message) = boot(&["--jail"]);
    assert_eq!(code, Some(125), "{message}");
    for part in ["a look at what is open", "mount /proc", "--best-effort"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
    for arguments in [&["--jail", "--best-effort"][..], &[]] {
        let (code, message) = boot(arguments);
        assert_eq!(code, Some(0), "{message}");
        assert!(message.contains("a look at what is open"), "{message}");
        assert!(!message.contains("--best-effort"), "{message}");
    }
}
