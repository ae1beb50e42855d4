//! A disk in a VM against the same work on the host: `cargo bench --bench io [-- --rounds N]`.
//!
//! The guest is bare metal with someone else's driver (`virtio-drivers`) and runs at native speed on any KVM. It
//! offers `depth` requests at a time and waits for all of them; the host side does the same through an io_uring
//! of its own. Both use one file, bypass the page cache (O_DIRECT), and take turns, round by round. The guest's
//! clock is its TSC, from the first request to the last answer; the host's is monotonic, likewise. Medians.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use io_uring::{IoUring, opcode, types};
use kvmlet::config::Disk;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

const DISK_BYTES: u64 = 256 << 20;
const OPERATIONS: u64 = 4000;
const LARGE_OPERATIONS: u64 = 100;
/// The entropy source has the first slot, the disk the one behind.
const SLOT: &str = "mmio=0xd0002000";

/// One kind of work: name as the guest prints it, request size, depth, direction.
const WORK: [(&str, usize, usize, bool); 6] = [
    ("read4k depth=1", 4 << 10, 1, false),
    ("read4k depth=32", 4 << 10, 32, false),
    ("read1m depth=1", 1 << 20, 1, false),
    ("write4k depth=1", 4 << 10, 1, true),
    ("write4k depth=32", 4 << 10, 32, true),
    ("write1m depth=1", 1 << 20, 1, true),
];

fn main() {
    let rounds = harness::argument("--rounds", 5);
    if let Err(reason) = harness::kvm() {
        println!("SKIPPED: {reason}");
        return;
    }
    let image = tempfile::NamedTempFile::new_in(".").expect("a file");
    fill(image.path());
    let mut guest: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut host: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut kicks = BTreeMap::new();
    for _ in 0..rounds {
        for (name, rate, exits) in in_guest(image.path()) {
            guest.entry(name).or_default().push(rate);
            kicks.insert(name, exits);
        }
        for work in WORK {
            host.entry(work.0)
                .or_default()
                .push(on_host(image.path(), work));
        }
    }
    println!(
        "-- {rounds} rounds on one file of {} MiB, O_DIRECT; requests per second",
        DISK_BYTES >> 20
    );
    println!(
        "{:<18} {:>10} {:>10} {:>7}   requests per notification",
        "", "host", "guest", "ratio"
    );
    for (name, ..) in WORK {
        let (host, guest) = (median(&mut host, name), median(&mut guest, name));
        println!(
            "{name:<18} {host:>10.0} {guest:>10.0} {:>6.0}%   {:.1}",
            guest / host * 100.0,
            kicks[name]
        );
    }
}

/// Real blocks: a hole is read without touching the disk.
fn fill(path: &Path) {
    let bytes: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let contents = bytes.repeat(DISK_BYTES as usize / bytes.len());
    std::fs::write(path, contents).expect("a full file");
    File::open(path)
        .and_then(|file| file.sync_all())
        .expect("a synced file");
}

fn median(samples: &mut BTreeMap<&str, Vec<f64>>, name: &str) -> f64 {
    let samples = samples.get_mut(name).expect("samples");
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Requests per second and per notification, for each kind of work.
fn in_guest(path: &Path) -> Vec<(&'static str, f64, f64)> {
    let disk: Disk = format!("{},direct", path.display())
        .parse()
        .expect("a disk");
    let cmdline = format!("{SLOT} ops={OPERATIONS} large_ops={LARGE_OPERATIONS} span={DISK_BYTES}");
    let guest = harness::Guest::boot_with("virtio_blk_bench", |c| c.cmdline(cmdline).disk(disk));
    guest.vm.wait().expect("an end");
    let output = guest.output.text();
    let parse = |(name, ..): (&'static str, usize, usize, bool)| {
        let line = output
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .expect(&output);
        let number = |key| harness::number(line, key);
        let seconds = number("tsc=") / (number("khz=") * 1e3);
        (
            name,
            number("ops=") / seconds,
            number("ops=") / number("kicks=").max(1.0),
        )
    };
    WORK.map(parse).into()
}

/// The same work through an io_uring of this process's own; requests per second.
fn on_host(path: &Path, (_, bytes, depth, write): (&str, usize, usize, bool)) -> f64 {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .expect("a file");
    let fd = types::Fd(file.as_raw_fd());
    let mut ring = IoUring::new(64).expect("an io_uring");
    // One allocation, aligned for O_DIRECT, with a place for each request in flight.
    let memory = vec![0u8; bytes * depth + 4096];
    let base = (memory.as_ptr() as usize).next_multiple_of(4096);
    let operations = if bytes > 4 << 10 {
        LARGE_OPERATIONS
    } else {
        OPERATIONS
    };
    let places = DISK_BYTES / bytes as u64;
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut sequential = 0;
    let start = Instant::now();
    for _ in 0..operations / depth as u64 {
        for slot in 0..depth {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            sequential = (sequential + 1) % places;
            let place = if bytes > 4 << 10 {
                sequential
            } else {
                (random >> 33) % places
            };
            let buffer = (base + slot * bytes) as *mut u8;
            let offset = place * bytes as u64;
            let entry = match write {
                false => opcode::Read::new(fd, buffer, bytes as u32)
                    .offset(offset)
                    .build(),
                true => opcode::Write::new(fd, buffer, bytes as u32)
                    .offset(offset)
                    .build(),
            };
            // SAFETY: buffer and file outlive the request, which is waited for below.
            unsafe { ring.submission().push(&entry).expect("room in the ring") };
        }
        ring.submit_and_wait(depth).expect("completions");
        for answer in ring.completion() {
            assert_eq!(answer.result(), bytes as i32);
        }
    }
    (operations / depth as u64 * depth as u64) as f64 / start.elapsed().as_secs_f64()
}
