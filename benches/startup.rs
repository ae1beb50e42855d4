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
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const KVMLET: &str = env!("CARGO_BIN_EXE_kvmlet");
const WARM_UP: usize = 10;

fn main() {
    let rounds = harness::argument("--rounds", 100);
    if let Err(reason) = harness::kvm() {
        println!("SKIPPED: {reason}");
        return;
    }
    end_to_end(rounds);
    phases(rounds);
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
