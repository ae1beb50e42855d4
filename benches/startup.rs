//! What a start costs: `cargo bench --bench startup [-- --rounds N] [--linux]`.
//!
//! Clocks start before the process is spawned and stop when its first byte has been read, and when it has
//! been waited for. The floor in each round is the same executable doing nothing (`kvmlet --version`). The
//! phases come from inside the library (`Vm::boot_trace`), in this process. All figures are medians.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;

use kvmlet::vm::Phase;
use kvmlet::{Vm, VmConfig};
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const KVMLET: &str = env!("CARGO_BIN_EXE_kvmlet");
const WARM_UP: usize = 10;
/// kvmlet's default.
const GUEST_BYTES: u64 = 128 << 20;

fn main() {
    let rounds = harness::argument("--rounds", 100);
    if let Err(reason) = harness::kvm() {
        println!("SKIPPED: {reason}");
        return;
    }
    end_to_end(rounds);
    phases(rounds);
    memory();
    if std::env::args().any(|word| word == "--linux") {
        linux();
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantile(samples: &mut [Duration], q: f64) -> f64 {
    samples.sort();
    ms(samples[((samples.len() - 1) as f64 * q) as usize])
}

fn report(name: &str, samples: &mut [Duration]) {
    let (median, p95) = (quantile(samples, 0.5), quantile(samples, 0.95));
    println!("{name:<44} {median:>9.3} ms   p95 {p95:>9.3}");
}

fn spawn(arguments: &[&str]) -> (Child, ChildStdout) {
    let mut child = Command::new(KVMLET)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kvmlet starts");
    let stdout = child.stdout.take().expect("a pipe");
    (child, stdout)
}

/// Spawn to first byte, and spawn to process gone.
fn run(arguments: &[&str]) -> (Duration, Duration) {
    let start = Instant::now();
    let (mut child, mut stdout) = spawn(arguments);
    stdout.read_exact(&mut [0]).expect("a byte");
    let first = start.elapsed();
    child.wait().expect("an end");
    (first, start.elapsed())
}

fn end_to_end(rounds: usize) {
    let program = harness::program("first_byte");
    let boot = ["boot", "--kernel", program.to_str().expect("a path")];
    let (mut first, mut gone, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds + WARM_UP {
        let (a, b) = run(&boot);
        let (_, nothing) = run(&["--version"]);
        if round >= WARM_UP {
            first.push(a);
            gone.push(b);
            floor.push(nothing);
        }
    }
    println!("-- {rounds} rounds of a bare-metal guest: 128 MiB, 1 vCPU");
    report("spawn -> first guest byte", &mut first);
    report("spawn -> process gone", &mut gone);
    report("the same executable, doing nothing", &mut floor);
    let size = std::fs::metadata(KVMLET)
        .map(|file| file.len())
        .unwrap_or(0);
    println!(
        "{:<44} {:>9.2} MB",
        "size of the executable",
        size as f64 / 1e6
    );
}

fn phases(rounds: usize) {
    let program = harness::program("first_byte");
    let mut samples = vec![Vec::new(); Phase::ALL.len()];
    for round in 0..rounds + WARM_UP {
        let config = VmConfig::builder()
            .kernel(&program)
            .build()
            .expect("a configuration");
        let vm = Vm::new(config).and_then(Vm::start).expect("a VM");
        vm.wait().expect("an end");
        if round >= WARM_UP {
            for (phase, time) in vm.boot_trace().phases() {
                samples[phase as usize].push(time);
            }
        }
    }
    println!("-- phases, from the start of Vm::new");
    for (phase, samples) in Phase::ALL.iter().zip(&mut samples) {
        if !samples.is_empty() {
            report(phase.name(), samples);
        }
    }
}

/// Proportional set size of a running VMM, without what backs guest RAM.
fn memory() {
    let program = harness::program("first_byte_spin");
    let (mut child, mut stdout) = spawn(&["boot", "--kernel", program.to_str().expect("a path")]);
    stdout.read_exact(&mut [0]).expect("a byte");
    let smaps = std::fs::read_to_string(
        Path::new("/proc")
            .join(child.id().to_string())
            .join("smaps"),
    )
    .expect("smaps");
    child.kill().expect("a signal");
    child.wait().expect("an end");
    let (mut guest, mut vmm, mut of_guest) = (0, 0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Pss:") => {
                let kib: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                *if of_guest { &mut guest } else { &mut vmm } += kib;
            }
            // A mapping's range. Guest RAM has a name where the kernel keeps names, and its size everywhere.
            Some(range) if !range.ends_with(':') => {
                of_guest = line.contains("guest-ram") || range_bytes(range) == Some(GUEST_BYTES);
            }
            _ => {}
        }
    }
    println!("-- memory of that guest's VMM (proportional set size)");
    println!(
        "{:<44} {:>9.2} MiB",
        "beyond guest RAM",
        vmm as f64 / 1024.0
    );
    println!(
        "{:<44} {:>9.2} MiB",
        "guest RAM touched",
        guest as f64 / 1024.0
    );
}

fn range_bytes(range: &str) -> Option<u64> {
    let (start, end) = range.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

/// One boot of the default guest, to the end of its init's work.
fn linux() {
    println!("-- Linux, the default kernel and initrd (one boot)");
    let start = Instant::now();
    let (mut child, mut stdout) = spawn(&["boot", "--", "/bin/echo", "userland"]);
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        output.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&output).contains("\nuserland") {
            println!(
                "{:<44} {:>9.1} ms",
                "spawn -> output of a service",
                ms(start.elapsed())
            );
            break;
        }
    }
    child.wait().expect("an end");
    println!(
        "{:<44} {:>9.1} ms",
        "spawn -> process gone",
        ms(start.elapsed())
    );
}
