//! A VM that cannot end: a thread of it waits for a disk, in the kernel, where no signal ends it.

use super::DEVICES;
use super::hung_file::HungFile;
use crate::cli::{kvmlet, text};
use crate::harness::has_ended;
use crate::harness::sandbox::Sandbox;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// What a guest has, what its process has once it is killed, twice the time between two looks, and a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

pub fn told() {
    type End = fn(&Child);
    let ends: [(&str, End); 2] = [
        ("who wants its end", |supervisor| {
            kill(supervisor.id(), libc::SIGTERM);
        }),
        ("who kills the VM's process", |supervisor| {
            kill(child_of(supervisor.id()), libc::SIGKILL);
        }),
    ];
    let mut hanging_ones = Vec::new();
    for (who, end) in ends {
        let file = match HungFile::new() {
            Ok(file) => file,
            Err(error) => return println!("SKIPPED: no FUSE here: {error}"),
        };
        // No pipe: what has it open for writing stays.
        let said = NamedTempFile::new().unwrap();
        let mut command = kvmlet("virtio_flood");
        command.stderr(said.reopen().unwrap());
        let supervisor = hanging(command, &file);
        let vm = child_of(supervisor.id());
        end(&supervisor);
        hanging_ones.push((who, supervisor, vm, said, file));
    }
    let since = Instant::now();
    for (who, mut supervisor, vm, said, _file) in hanging_ones {
        let status = supervisor.wait().unwrap();
        println!("{who}: {:?}", since.elapsed());
        assert!(
            since.elapsed() < TOLD_WITHIN,
            "{who}: {:?}",
            since.elapsed()
        );
        let said = std::fs::read_to_string(said.path()).unwrap();
        assert_eq!(status.code(), Some(125), "{who}: {said}");
        assert!(
            said.contains(&format!("its process {vm} has not")),
            "{said}"
        );
        assert!(said.contains("when that answers"), "{said}");
    }
}

/// What such a VM leaves behind is found by the next one, as soon as its disk has answered.
pub fn cleared() {
    let (sandbox, file) = match (Sandbox::new(100), HungFile::new()) {
        (Ok(sandbox), Ok(file)) => (sandbox, file),
        (Err(reason), _) => return println!("SKIPPED: no cgroup here: {reason}"),
        (_, Err(error)) => return println!("SKIPPED: no FUSE here: {error}"),
    };
    let mut command = sandbox.boot("virtio_flood");
    command.args(["--cpu-quota", "0.5"]);
    let mut supervisor = hanging(command, &file);
    let vm = child_of(supervisor.id());
    kill(supervisor.id(), libc::SIGTERM);
    assert_eq!(supervisor.wait().unwrap().code(), Some(125));
    assert_ne!(sandbox.left_over(), Vec::<std::path::PathBuf>::new());
    // The disk answers: all requests fail.
    drop(file);
    let deadline = Instant::now() + TOLD_WITHIN;
    while !has_ended(vm) {
        assert!(Instant::now() < deadline, "{vm} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut next = sandbox.boot("power_off");
    let next = next.args(["--cpu-quota", "0.5"]).output().unwrap();
    assert!(next.status.success(), "{}", text(&next.stderr));
    assert_eq!(sandbox.left_over(), Vec::<std::path::PathBuf>::new());
}

/// A VM whose disk's thread waits for that file.
fn hanging(mut command: Command, file: &HungFile) -> Child {
    let disk = format!("path={},format=raw,io=sync", file.path().display());
    let mut child = command
        .args([
            "--disk",
            &disk,
            "--cmdline",
            DEVICES.split(',').next().unwrap(),
        ])
        .args(["--no-rng", "--stop-timeout", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "flooding\n");
    // The worker's first request is on its way.
    std::thread::sleep(Duration::from_millis(500));
    child
}

fn kill(process: u32, signal: libc::c_int) {
    // SAFETY: the process is a child, or a child's, that has not been waited for.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0);
}

/// The process of a supervisor's VM.
fn child_of(supervisor: u32) -> u32 {
    let path = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = std::fs::read_to_string(path).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}
