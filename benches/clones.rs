//! What many instances cost that go on from one: `cargo bench --bench clones [-- --instances N]`, as root.
//!
//! The book is a directory of its own, on the disk of the working directory. The guest is bare metal, has 128 MiB, plays the agent and
//! then halts. Instances are started by `run --warm -d`, from one template, and by `clone`, from one that runs, the former one
//! and then two at a time. The clock of each start runs from the spawn to the end of the command, which says that the service runs. Once all
//! run, memory is that of all their processes (supervisors and VMs, with /proc/PID/smaps): the proportional set size, in which a page that
//! n processes have counts 1/n for each, less the pages of guest RAM that are in no file, which are what the guest has written.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_harness as harness;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::collections::HashSet;
use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// kvmlet's default.
const GUEST_BYTES: u64 = 128 << 20;
/// What one may have beside what its guest has written, in MiB.
const BAR: f64 = 1.2;

fn main() {
    let count = harness::argument("--instances", 100);
    if let Err(reason) = harness::kvm() {
        return println!("SKIPPED: {reason}");
    }
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    // Supervisors lose their parents, and come to this process.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).expect("orphans are taken");
    let place = enter();
    let agent = harness::program("agent").display().to_string();
    let warm = [
        "run", "-d", "--warm", "--kernel", &agent, "root.img", "stay",
    ];
    println!(
        "{:<10} {:>9} {:>9} {:>10} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "",
        "at a time",
        "starts/s",
        "median ms",
        "p95 ms",
        "MiB each",
        "written",
        "beyond",
        "kernel etc."
    );
    // The first of each is who the others go on from.
    kvmlet(place.path(), &warm);
    kvmlet(
        place.path(),
        &[
            "run", "-d", "--name", "web", "--kernel", &agent, "root.img", "stay",
        ],
    );
    // A VM is saved for one at a time.
    let ways = [
        ("run --warm", &warm[..], 1),
        ("run --warm", &warm, 2),
        ("clone", &["clone", "web"], 1),
    ];
    for (name, arguments, at_once) in ways {
        measure(place.path(), name, arguments, count, at_once);
    }
    let load = read_to_string("/proc/loadavg").expect("a load");
    println!(
        "{count} instances; beyond what is written there may be {BAR} MiB; load {}",
        load.trim()
    );
    let ids = kvmlet(place.path(), &["ps", "-q"]);
    remove(place.path(), &ids);
}

/// Mounts of this process's own: a book, a /run, and an image for roots.
fn enter() -> tempfile::TempDir {
    // SAFETY: descriptors stay as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mounts of its own");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
    let flags = MountFlags::empty();
    mount("run", "/run", "tmpfs", flags, Some(c"mode=755")).expect("a /run");
    let place = tempfile::tempdir_in(".").expect("a directory");
    let book = place.path().join("book");
    std::fs::create_dir(&book).expect("a directory");
    mount_bind(&book, "/var/lib").expect("a book");
    let image = Command::new("mkfs.ext4")
        .args(["-q", "root.img", "4M"])
        .current_dir(place.path())
        .output();
    assert!(image.expect("mkfs.ext4").status.success());
    place
}

/// Has kvmlet do something; returns what it prints.
fn kvmlet(place: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command
        .args(arguments)
        .current_dir(place)
        .stdin(Stdio::null());
    let output = command.stdout(Stdio::piped()).output().expect("kvmlet");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn remove(place: &Path, ids: &str) {
    let ids = ids.split_whitespace();
    kvmlet(
        place,
        &["rm", "-f"].into_iter().chain(ids).collect::<Vec<_>>(),
    );
}

fn measure(place: &Path, name: &str, arguments: &[&str], count: usize, at_once: usize) {
    let others = descendants();
    let free = available_kib();
    let (next, started) = (AtomicUsize::new(0), Mutex::new((Vec::new(), String::new())));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let begun = Instant::now();
                    let id = kvmlet(place, arguments);
                    let mut started = started.lock().expect("a list");
                    started.0.push(begun.elapsed().as_secs_f64() * 1e3);
                    started.1 += &id;
                }
            });
        }
    });
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let (mut times, ids) = started.into_inner().expect("a list");
    times.sort_by(f64::total_cmp);
    let quantile = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    let taken = free.saturating_sub(available_kib());
    let all = descendants();
    let (mut sum, mut written) = (0, 0);
    for pid in all.difference(&others) {
        let (process, guest) = memory(*pid);
        sum += process;
        written += guest;
    }
    let each = |kib: u64| kib as f64 / 1024.0 / count as f64;
    println!(
        "{name:<10} {at_once:>9} {rate:>9.1} {:>10.2} {:>10.2} {:>12.3} {:>12.3} {:>12.3} {:>12.3}",
        quantile(0.5),
        quantile(0.95),
        each(sum),
        each(written),
        each(sum - written),
        each(taken) - each(sum)
    );
    remove(place, &ids);
}

/// Proportional set size of a process, and of that, guest RAM that is in no file, in KiB.
fn memory(pid: u32) -> (u64, u64) {
    let smaps = read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut sum, mut written, mut is_guest) = (0, 0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let mut kib = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match first {
            "Pss:" => sum += kib(),
            "Anonymous:" if is_guest => written += kib(),
            // A mapping's range. Guest RAM has a name where the kernel keeps names, and its size everywhere.
            range if !range.ends_with(':') => {
                is_guest = line.contains("guest-ram") || bytes(range) == Some(GUEST_BYTES);
            }
            _ => {}
        }
    }
    (sum, written)
}

fn bytes(range: &str) -> Option<u64> {
    let (start, end) = range.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

fn available_kib() -> u64 {
    let info = read_to_string("/proc/meminfo").expect("memory");
    let mut lines = info.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).expect("a number")
}

/// All processes that this one has started, and that they have.
fn descendants() -> HashSet<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let entries = read_dir("/proc").expect("processes").flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, u32)> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = HashSet::from([std::process::id()]);
    loop {
        let more = all
            .iter()
            .filter(|(pid, of)| found.contains(of) && !found.contains(pid));
        let more: Vec<u32> = more.map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}
