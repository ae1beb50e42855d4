//! VMs held to their share, through the command line, in cgroups and a ledger of the test's own.

pub mod cpu;
pub mod halting;
pub mod launches;
pub mod memory;

use crate::cli::{Running, vm_process};
use crate::harness::cpu_time;
use crate::harness::sandbox::Sandbox;
use kvmlet_host::shares::ledger::Host;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// As any process has.
const USUAL_WEIGHT: u64 = 100;
/// The most: who measures shares must not be held up by what else runs on this machine.
const FULL_WEIGHT: u64 = 10_000;

fn sandbox(weight: u64) -> Option<Sandbox> {
    Sandbox::new(weight)
        .map_err(|reason| println!("SKIPPED: {reason}"))
        .ok()
}

fn host_cpus() -> Vec<u16> {
    Host::here().unwrap().cpus.iter().collect()
}

/// A VM, and both ends of its console.
struct Vm {
    running: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Vm {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::spawn(command);
        Self {
            input: running.stdin.take().unwrap(),
            output: BufReader::new(running.stdout.take().unwrap()),
            running,
        }
    }

    /// The next line; empty when the VM has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().into()
    }

    fn bytes(&mut self, count: usize) {
        self.output.read_exact(&mut vec![0; count]).unwrap();
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// The threads of the VM's process, by name and number.
    fn threads(&self) -> Vec<(String, PathBuf)> {
        let tasks = format!("/proc/{}/task", vm_process(&self.running));
        let paths = fs::read_dir(tasks)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let name = |path: &Path| {
            fs::read_to_string(path.join("comm"))
                .unwrap()
                .trim()
                .to_string()
        };
        paths.map(|path| (name(&path), path)).collect()
    }

    /// What the VM's process has used.
    fn cpu_time(&self) -> Duration {
        cpu_time(vm_process(&self.running))
    }
}

/// Which cgroup a process or thread is in, as far as a controller goes: by its path from the root of the tree.
fn cgroup(process: impl AsRef<Path>, controller: &str) -> String {
    let text = fs::read_to_string(process.as_ref().join("cgroup")).unwrap();
    // The line of version 2 names none, and comes last.
    let mut lines = text.lines().map(|line| line.splitn(3, ':').skip(1));
    let place = lines.find_map(|mut parts| {
        let controllers = parts.next()?;
        let here = controllers.is_empty() || controllers.split(',').any(|name| name == controller);
        parts.next().filter(|_| here)
    });
    place.unwrap().into()
}

/// Where the tree of a controller is mounted.
fn mount(controller: &str) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let kind = |kind: &str, option: &str| {
        let mut lines = mounts.lines().map(|line| line.split(' '));
        lines.find_map(|mut words| {
            let (_, point) = (words.next()?, words.next()?);
            let found =
                words.next()? == kind && words.next()?.split(',').any(|word| word == option);
            found.then(|| PathBuf::from(point))
        })
    };
    kind("cgroup", controller)
        .or_else(|| kind("cgroup2", "rw"))
        .unwrap()
}
