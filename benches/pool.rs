//! How long a VM of a pool takes to answer: `[chrt -r 5] cargo bench --bench pool [-- --rounds N]`, as root.
//!
//! The guest is bare metal, has 128 MiB, and writes the line `ready` as soon as it goes on from its snapshot. The clock begins
//! before the pool is asked, by a connection that is there, and ends when the line was read from the VM's console, by the
//! same process. Before each round the pool is full, and nothing is being started. With it is told how long it takes to
//! restore one anew (`kvmlet restore`, from the spawn to the line), by turns, and to take one by the command (`kvmlet pool take`).

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_control::Pool;
use kvmlet_harness as harness;
use kvmlet_harness::control::with_control;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// VMs that are ready before each round.
const SIZE: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// What is left of a round's start and end is over by then.
const QUIET: Duration = Duration::from_millis(10);

fn main() {
    let rounds = harness::argument("--rounds", 300);
    if let Err(reason) = harness::kvm() {
        return println!("SKIPPED: {reason}");
    }
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = enter();
    save(place.path());
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "milliseconds", "least", "median", "p95", "p99", "most"
    );
    for jail in ["--jail", "--no-jail"] {
        let size = SIZE.to_string();
        let create = [
            "pool", "create", "--name", "it", "--size", &size, "saved", jail,
        ];
        kvmlet(place.path(), &create);
        let path = Path::new("/var/lib/kvmlet/pools/it.socket");
        let mut pool = Pool::to(path).expect("a pool");
        let (mut taken, mut commands, mut restored) = (Vec::new(), Vec::new(), Vec::new());
        // The first warm up what is to be warm.
        for round in 0..rounds + 5 {
            let fill = |pool: &mut Pool| {
                while pool.status(PATIENCE).expect("a status").ready < SIZE {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(QUIET);
            };
            fill(&mut pool);
            let begun = Instant::now();
            let vm = pool.take(PATIENCE).expect("a VM");
            let mut lines = BufReader::new(File::from(vm.output)).lines();
            expect_ready(&mut lines);
            let answered = begun.elapsed();
            // It powers off, and its supervisor ends.
            lines.for_each(drop);
            fill(&mut pool);
            let by_command = spawn(place.path(), &["pool", "take", "it"]);
            fill(&mut pool);
            let anew = spawn(place.path(), &["restore", jail, "saved"]);
            if round >= 5 {
                taken.push(answered);
                commands.push(by_command);
                restored.push(anew);
            }
        }
        tell(&format!("request to answer, {jail}"), taken);
        tell(&format!("kvmlet pool take, {jail}"), commands);
        tell(&format!("kvmlet restore, {jail}"), restored);
        kvmlet(place.path(), &["pool", "rm", "it"]);
    }
    let load = read_to_string("/proc/loadavg").expect("a load");
    println!("{rounds} rounds; load {}", load.trim());
}

/// Mounts of this process's own: a book, and a /run.
fn enter() -> tempfile::TempDir {
    // SAFETY: descriptors stay as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mounts of its own");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
    for target in ["/run", "/var/lib"] {
        let flags = MountFlags::empty();
        mount("tmpfs", target, "tmpfs", flags, Some(c"mode=755")).expect("a place");
    }
    tempfile::tempdir().expect("a directory")
}

/// Saves a guest that waits for that.
fn save(place: &Path) {
    let socket = place.join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut boot = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    boot.args(["boot", "--no-rng", "--no-jail", "--kernel"])
        .arg(harness::program("ready_again"));
    let boot = with_control(&mut boot, listener.into());
    let mut guest = boot
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a guest");
    let mut lines = BufReader::new(guest.stdout.take().expect("its output")).lines();
    assert_eq!(
        lines.next().expect("a line").expect("a line").trim(),
        "saved"
    );
    kvmlet(place, &["snapshot", "./socket", "saved"]);
    let _ = guest.kill();
    let _ = guest.wait();
}

fn expect_ready(lines: &mut impl Iterator<Item = std::io::Result<String>>) {
    let line = lines.next().expect("a line").expect("a line");
    assert_eq!(line.trim(), "ready");
}

/// From the spawn of a command to its line.
fn spawn(place: &Path, arguments: &[&str]) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.args(arguments).current_dir(place);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kvmlet");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    expect_ready(&mut lines);
    let answered = begun.elapsed();
    assert!(child.wait().expect("an end").success());
    answered
}

/// Has kvmlet do something.
fn kvmlet(place: &Path, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.args(arguments).current_dir(place);
    let output = command.stdin(Stdio::null()).output().expect("kvmlet");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        let place = ((times.len() - 1) as f64 * share).round() as usize;
        times[place].as_secs_f64() * 1e3
    };
    println!(
        "{what:<28} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
        at(0.0),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}
