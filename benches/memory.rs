//! What a VMM costs in memory: `cargo bench --bench memory`.
//!
//! Figures are the proportional set size (PSS, /proc/PID/smaps) of `kvmlet boot`, supervisor and VMM together: a
//! page that several processes map counts for each by its share. Guest RAM, which is one mapping, is told apart from all else. The
//! guests are bare metal: one that halts, and one that keeps two disks and an interface busy while frames come in,
//! in a network namespace of the benchmark's own. Then ten VMs read the same image, and the host's page cache
//! and the reads from its storage tell how often the image is there.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_harness as harness;
use kvmlet_harness::packets::{enter_own_network, frame, packet_socket, tap};
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;
use tempfile::NamedTempFile;

/// kvmlet's default.
const GUEST_BYTES: u64 = 128 << 20;
const IMAGE_BYTES: u64 = 8 << 20;
const VMS: usize = 10;
/// When the code of the start is left to the page cache.
const SETTLED: Duration = Duration::from_millis(1500);
/// How often a VMM under load is looked at; the most counts.
const LOOKS: usize = 20;

fn main() {
    if let Err(reason) = harness::kvm() {
        println!("SKIPPED: {reason}");
        return;
    }
    println!("-- proportional set size of the VMM");
    let idle = Vmm::boot("ready_stay", &[]);
    idle.wait_for("R");
    idle.footprint().report("a guest that halts, at first");
    sleep(SETTLED);
    idle.footprint().report("a guest that halts");
    drop(idle);
    under_load();
    one_image();
}

/// A `kvmlet boot` process, killed when dropped.
struct Vmm {
    child: Child,
    output: std::cell::RefCell<BufReader<ChildStdout>>,
}

impl Vmm {
    fn boot(guest: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
            .args(["boot", "--kernel"])
            .arg(harness::program(guest))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("kvmlet starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).into();
        Self { child, output }
    }

    fn wait_for(&self, text: &str) {
        let mut output = self.output.borrow_mut();
        if text.len() == 1 {
            return output.read_exact(&mut [0]).expect("a byte");
        }
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let count = output.read_line(&mut line).expect("a line");
            assert!(count > 0, "the guest ended without {text:?}");
        }
    }

    /// A file of /proc for the process that was started, and for each of its children.
    fn files(&self, name: &str) -> Vec<String> {
        let pid = self.child.id().to_string();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(&children).expect(&children);
        std::iter::once(&*pid)
            .chain(children.split_whitespace())
            .map(|pid| {
                let path = format!("/proc/{pid}/{name}");
                std::fs::read_to_string(&path).expect(&path)
            })
            .collect()
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::default();
        let mut of_guest = false;
        for line in self.files("smaps").iter().flat_map(|file| file.lines()) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("Pss:") => {
                    let kib: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                    *if of_guest {
                        &mut footprint.guest_kib
                    } else {
                        &mut footprint.vmm_kib
                    } += kib;
                }
                // A mapping's range. Guest RAM has a name where the kernel keeps names, and its size everywhere.
                Some(range) if !range.ends_with(':') => {
                    let by_size = range_bytes(range) == Some(GUEST_BYTES);
                    of_guest = line.contains("guest-ram") || by_size;
                }
                _ => {}
            }
        }
        footprint
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // SIGTERM, so that it takes its network down.
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

fn range_bytes(range: &str) -> Option<u64> {
    let (start, end) = range.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

#[derive(Clone, Copy, Default)]
struct Footprint {
    vmm_kib: u64,
    guest_kib: u64,
}

impl Footprint {
    fn report(self, name: &str) {
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!(
            "{name:<44} {:>6.2} MiB, guest RAM touched {:>6.2} MiB",
            mib(self.vmm_kib),
            mib(self.guest_kib)
        );
    }
}

/// An image of real blocks that the host's page cache does not hold.
fn image() -> NamedTempFile {
    let mut image = NamedTempFile::new_in(".").expect("a file");
    let bytes: Vec<u8> = (0..IMAGE_BYTES / 8).flat_map(u64::to_le_bytes).collect();
    image.write_all(&bytes).expect("a full file");
    image.as_file().sync_all().expect("a synced file");
    fadvise(image.as_file(), 0, None, Advice::DontNeed).expect("advice is taken");
    image
}

/// The most that a VMM takes while two disks and an interface are busy, by requests of as many pieces.
fn under_load() {
    let thread = std::thread::spawn(|| {
        if let Err(reason) = enter_own_network() {
            println!("SKIPPED: {reason}");
            return;
        }
        for pieces in [1, 16, 125] {
            let (first, second) = (image(), image());
            let disk = |image: &NamedTempFile| image.path().to_str().expect("a path").to_owned();
            // The entropy source has the first slot, disks the ones behind, then the interface.
            let cmdline = format!("disks=0xd0002000,0xd0003000 mmio=0xd0004000 pieces={pieces}");
            let arguments = ["--disk", &disk(&first), "--disk", &disk(&second), "--net"];
            let vmm = Vmm::boot(
                "virtio_load",
                &[&arguments[..], &["--cmdline", &cmdline]].concat(),
            );
            vmm.wait_for("loaded");
            let done = AtomicBool::new(false);
            let most = std::thread::scope(|scope| {
                scope.spawn(|| flood(&done));
                sleep(SETTLED);
                let looks = (0..LOOKS).map(|_| vmm.footprint());
                let most = looks.max_by_key(|footprint| footprint.vmm_kib);
                done.store(true, Ordering::Relaxed);
                most.expect("a look")
            });
            most.report(&format!(
                "2 disks, 1 interface, {pieces:>3} pieces a request"
            ));
        }
    });
    thread.join().expect("a measurement");
}

/// Sends full frames to the guest: what the tap's queue has no room for is lost.
fn flood(done: &AtomicBool) {
    let mut socket = packet_socket(&tap());
    let frame = frame(&[0; 1500]);
    while !done.load(Ordering::Relaxed) {
        let _ = socket.write_all(&frame);
    }
}

fn one_image() {
    let image = image();
    let path = image.path().to_str().expect("a path");
    let disk = format!("{path},ro");
    let cmdline = "disks=0xd0002000 only=read";
    let before = cached(image.path());
    let vms: Vec<Vmm> = (0..VMS)
        .map(|_| Vmm::boot("virtio_load", &["--disk", &disk, "--cmdline", cmdline]))
        .collect();
    vms.iter().for_each(|vm| vm.wait_for("loaded"));
    let after = cached(image.path());
    let footprints: Vec<Footprint> = vms.iter().map(Vmm::footprint).collect();
    let files = vms.iter().flat_map(|vm| vm.files("io"));
    let stored: u64 = files.map(|io| storage_bytes(&io)).sum();
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    println!(
        "-- {VMS} VMs at a time that each read all of one image of {:.1} MiB",
        mib(IMAGE_BYTES)
    );
    println!(
        "{:<44} {:>6.2} MiB, before {:.2} MiB",
        "of the image in the host's page cache",
        mib(after),
        mib(before)
    );
    println!(
        "{:<44} {:>6.2} MiB",
        "read from the host's storage, all together",
        mib(stored)
    );
    let mean = |kib: fn(&Footprint) -> u64| footprints.iter().map(kib).sum::<u64>() / VMS as u64;
    let (vmm_kib, guest_kib) = (mean(|one| one.vmm_kib), mean(|one| one.guest_kib));
    Footprint { vmm_kib, guest_kib }.report("each VMM, on average");
}

/// How much of a file is in the host's page cache, in bytes (mincore(2)).
fn cached(path: &Path) -> u64 {
    let file = File::open(path).expect("a file");
    let bytes = file.metadata().expect("a size").len() as usize;
    let mut pages = vec![0u8; bytes.div_ceil(4096)];
    // SAFETY: a new mapping of the file, which is looked at and unmapped, and room for a byte for each page.
    unsafe {
        let flags = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        let map = rustix::mm::mmap(std::ptr::null_mut(), bytes, flags.0, flags.1, &file, 0);
        let map = map.expect("a mapping");
        assert_eq!(libc::mincore(map, bytes, pages.as_mut_ptr()), 0);
        rustix::mm::munmap(map, bytes).expect("its end");
    }
    4096 * pages.iter().filter(|page| **page & 1 == 1).count() as u64
}

/// What a process made the host fetch from its storage, from /proc/PID/io.
fn storage_bytes(io: &str) -> u64 {
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|number| number.parse().ok()).expect(io)
}
