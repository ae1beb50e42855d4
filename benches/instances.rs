//! What named instances cost: `cargo bench --bench instances [-- --instances N --rounds N]`, as root.
//!
//! The book is a directory of its own, on the disk of the working directory. Guests are bare metal: they answer the host's
//! first word at once, and halt. Clocks start before a process is spawned. That of `run -d` stops when the process has
//! ended, which says that the service runs; that of `kvmlet boot` when the guest's agent has connected and said its first
//! word, and, with the guest of the start-up benchmark, when its first byte has been read. `ps`, `exec` and the others are
//! whole processes, too. What is compared takes turns; figures are medians unless they say otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_control::agent::channel::AGENT_PORT;
use kvmlet_harness as harness;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs::read_to_string;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Where root has its book.
const STATE: &str = "/var/lib";
const WARM_UP: usize = 3;

fn main() {
    let (count, rounds) = (
        harness::argument("--instances", 200),
        harness::argument("--rounds", 30),
    );
    if let Err(reason) = harness::kvm() {
        return println!("SKIPPED: {reason}");
    }
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let host = Host::enter();
    over_boot(&host, rounds);
    growth(&host, count, rounds);
}

/// Mounts of this process's own: two books, one of which is in use, a /run, and an image for roots.
struct Host {
    place: tempfile::TempDir,
    agent: PathBuf,
}

impl Host {
    fn enter() -> Self {
        let agent = harness::program("agent");
        // SAFETY: descriptors stay as they are.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mounts of its own");
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).expect("private mounts");
        mount(
            "run",
            "/run",
            "tmpfs",
            MountFlags::empty(),
            Some(c"mode=755"),
        )
        .expect("a /run");
        let place = tempfile::tempdir_in(".").expect("a directory");
        for directory in ["book", "empty", "files"] {
            std::fs::create_dir(place.path().join(directory)).expect("a directory");
        }
        let (image, files) = (place.path().join("root"), place.path().join("files"));
        let made = Command::new("mkfs.erofs").args([image, files]).output();
        assert!(made.expect("mkfs.erofs").status.success());
        let host = Self { place, agent };
        host.use_book("book");
        host
    }

    fn use_book(&self, name: &str) {
        mount_bind(self.place.path().join(name), STATE).expect("a book");
    }

    /// Does something with an empty book, whatever else runs.
    fn with_empty_book<T>(&self, act: impl FnOnce() -> T) -> T {
        self.use_book("empty");
        let result = act();
        rustix::mount::unmount(STATE, rustix::mount::UnmountFlags::DETACH).expect("an end");
        result
    }

    /// Milliseconds that `kvmlet` takes with these arguments.
    fn time(&self, arguments: &[&str]) -> f64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        command.args(arguments).stdin(Stdio::null());
        command.current_dir(self.place.path());
        let begun = Instant::now();
        let output = command.stdout(Stdio::piped()).output().expect("kvmlet");
        let time = ms(begun);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        time
    }

    /// Milliseconds that the start of an instance takes.
    fn run(&self, name: &str) -> f64 {
        let kernel = self.agent.display().to_string();
        let flags = [
            "run", "-d", "--name", name, "-m", "16m", "--kernel", &kernel,
        ];
        self.time(&[&flags[..], &["root", "stay"]].concat())
    }

    fn run_and_remove(&self, name: &str) -> f64 {
        let time = self.run(name);
        self.time(&["rm", "-f", name]);
        time
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn report(what: &str, samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    let quantile = |q: f64| samples[((samples.len() - 1) as f64 * q) as usize];
    let [low, middle, high] = [0.25, 0.5, 0.75].map(quantile);
    println!("{what:<56} {low:>8.3} {middle:>8.3} {high:>8.3}");
    middle
}

fn boot(guest: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.args(["boot", "--jail", "-m", "16M", "--kernel"]);
    command.arg(guest).stdin(Stdio::null());
    command
}

/// Cuts its power.
fn end(mut child: Child) {
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGQUIT) };
    child.wait().expect("an end");
}

/// Until the guest's first byte is read.
fn boot_to_byte(guest: &Path) -> f64 {
    let begun = Instant::now();
    let mut child = boot(guest).stdout(Stdio::piped()).spawn().expect("kvmlet");
    let out = child.stdout.as_mut().expect("a pipe");
    out.read_exact(&mut [0]).expect("the guest begins");
    let time = ms(begun);
    child.wait().expect("an end");
    time
}

/// Until the guest's agent has said something.
fn boot_to_agent(host: &Host) -> f64 {
    let socket = host.place.path().join("v");
    let theirs = host.place.path().join(format!("v_{AGENT_PORT}"));
    let listener = UnixListener::bind(&theirs).expect("a socket");
    let mut command = boot(&host.agent);
    command.arg("--vsock").arg(&socket).stdout(Stdio::null());
    let begun = Instant::now();
    let child = command.spawn().expect("kvmlet");
    let (mut agent, _) = listener.accept().expect("the agent connects");
    agent.read_exact(&mut [0]).expect("it says something");
    let time = ms(begun);
    end(child);
    std::fs::remove_file(theirs).expect("its end");
    time
}

/// What `run -d` costs beyond `boot`.
fn over_boot(host: &Host, rounds: usize) {
    let ready = harness::program("ready");
    let mut samples = [const { Vec::new() }; 5];
    for round in 0..rounds + WARM_UP {
        let byte = boot_to_byte(&ready);
        let agent = boot_to_agent(host);
        let run = host.run_and_remove("one");
        let all = [byte, agent, run, run - agent, run - byte];
        if round >= WARM_UP {
            samples
                .iter_mut()
                .zip(all)
                .for_each(|(samples, time)| samples.push(time));
        }
    }
    println!(
        "-- {rounds} rounds, ms {:>48} {:>8} {:>8}",
        "p25", "median", "p75"
    );
    let names = [
        "boot --jail, to the first byte of `ready`",
        "boot --jail, to the agent's first word",
        "run -d, until it returns",
        "run -d beyond boot to the agent's first word",
        "run -d beyond boot to the first byte",
    ];
    for (name, samples) in names.iter().zip(&mut samples) {
        report(name, samples);
    }
}

/// What the number of instances costs.
fn growth(host: &Host, count: usize, rounds: usize) {
    let starts = |name: &str| -> Vec<f64> {
        for _ in 0..WARM_UP {
            host.run_and_remove(name);
        }
        (0..rounds).map(|_| host.run_and_remove(name)).collect()
    };
    let load = || read_to_string("/proc/loadavg").expect("a load");
    println!("-- load {}", load().trim());
    let mut first = starts("first");
    for number in 1..count {
        host.run(&format!("vm{number}"));
    }
    println!("-- {} instances run; load {}", count - 1, load().trim());
    let (mut last, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        last.push(host.run_and_remove("last"));
        alone.push(host.with_empty_book(|| host.run_and_remove("alone")));
    }
    let first = report("start of the first", &mut first);
    let last = report(&format!("start of number {count}"), &mut last);
    let alone = report("in turn: beside as many VMs, in an empty book", &mut alone);
    println!(
        "{:<56} {:>17.3}, {:.3}",
        "the last against the first, and against that",
        last / first,
        last / alone
    );
    host.run(&format!("vm{count}"));
    for (what, arguments) in [
        ("ps", &["ps"][..]),
        ("ps -q", &["ps", "-q"]),
        ("inspect of one", &["inspect", "vm1"]),
        ("exec in one, to its end", &["exec", "vm1", "exit=0"]),
    ] {
        let mut samples: Vec<f64> = (0..rounds).map(|_| host.time(arguments)).collect();
        report(&format!("{what}, of {count}"), &mut samples);
    }
    let mut nobody: Vec<f64> = (0..rounds)
        .map(|_| host.with_empty_book(|| host.time(&["ps"])))
        .collect();
    report(
        "ps of an empty book, which is what the process costs",
        &mut nobody,
    );
    let begun = Instant::now();
    let names: Vec<String> = (1..=count).map(|number| format!("vm{number}")).collect();
    let names = names.iter().map(String::as_str);
    host.time(&["rm", "-f"].into_iter().chain(names).collect::<Vec<_>>());
    println!(
        "{:<56} {:>17.3}",
        "rm -f of all, ms each",
        ms(begun) / count as f64
    );
}
