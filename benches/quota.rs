//! What quotas cost, and whether they hold: `cargo bench --bench quota [-- --rounds N --crowds N]`.
//!
//! Clocks start before the process is spawned and stop when its guest's first byte has been read, and when it
//! has been waited for. Kinds of start take turns. Then a hundred VMs of 16 MiB and 0.02 CPUs are started one after
//! the other, and all are told to take what they can get. All figures are medians unless they say otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use harness::sandbox::Sandbox;
use kvmlet_harness as harness;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "KVMLET_BENCH_SANDBOX";
const WARM_UP: usize = 5;
const CROWD: usize = 100;
const QUOTA: f64 = 0.02;
const WINDOW: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        starts(harness::argument("--rounds", 100));
        crowds(harness::argument("--crowds", 5));
        return ExitCode::SUCCESS;
    }
    // What measures shares must not be held up by what else runs on this machine.
    let sandbox = match harness::kvm().and_then(|()| Sandbox::new(10_000)) {
        Ok(sandbox) => sandbox,
        Err(reason) => {
            println!("SKIPPED: {reason}");
            return ExitCode::SUCCESS;
        }
    };
    // Built out here, where nobody's clock runs.
    harness::program("orders");
    let mut inside = sandbox.command(std::env::current_exe().unwrap());
    let status = inside
        .args(std::env::args().skip(1))
        .env(INSIDE, "1")
        .status()
        .unwrap();
    ExitCode::from(u8::from(!status.success()))
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A VM whose guest has written its first byte, and the milliseconds until then.
fn start(guest: &Path, flags: &[&str]) -> (Child, f64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.args(["boot", "--kernel"]).arg(guest).args(flags);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0])
        .expect("the guest begins");
    (child, ms(begun))
}

/// What each kind of quota adds.
fn starts(rounds: usize) {
    let guest = harness::program("ready");
    let kinds: [(&str, &[&str]); 5] = [
        ("no quota", &[]),
        ("a memory limit", &["--memory-mode", "shared"]),
        ("half a CPU, and a memory limit", &["--cpu-quota", "0.5"]),
        (
            "the same, on one CPU",
            &["--cpu-quota", "0.5", "--cpuset", "0"],
        ),
        (
            "the same, for vCPUs only",
            &[
                "--cpu-quota",
                "0.5",
                "--cpuset",
                "0",
                "--cpu-scope",
                "vcpus",
            ],
        ),
    ];
    let mut samples = vec![(Vec::new(), Vec::new()); kinds.len()];
    for round in 0..rounds + WARM_UP {
        for ((_, flags), (first, gone)) in kinds.iter().zip(&mut samples) {
            let begun = Instant::now();
            let (mut child, began) = start(&guest, flags);
            child.wait().unwrap();
            if round >= WARM_UP {
                first.push(began);
                gone.push(ms(begun));
            }
        }
    }
    println!("-- {rounds} rounds of a bare-metal guest: 128 MiB, 1 vCPU (ms)");
    println!("{:<40} {:>11} {:>8}", "", "first byte", "gone");
    for ((name, _), (first, gone)) in kinds.iter().zip(&mut samples) {
        println!("{name:<40} {:>11.3} {:>8.3}", median(first), median(gone));
    }
}

/// A hundred VMs at once.
fn crowds(rounds: usize) {
    let guest = harness::program("orders");
    let quota = QUOTA.to_string();
    let mut started = vec![Vec::new(); CROWD];
    let mut used = Vec::new();
    for _ in 0..rounds {
        let mut crowd = Vec::new();
        for samples in &mut started {
            let (child, began) = start(&guest, &["--memory", "16M", "--cpu-quota", &quota]);
            samples.push(began);
            crowd.push(child);
        }
        for child in &mut crowd {
            child.stdin.as_mut().unwrap().write_all(b"s").unwrap();
        }
        used.extend(shares(&crowd));
        // Not killed: what is left of a killed VM is cleared by the next, whose start is measured.
        for child in &crowd {
            // SAFETY: the child has not been waited for, so the number is its own.
            unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        }
        for child in &mut crowd {
            child.wait().unwrap();
        }
    }
    let mut medians: Vec<f64> = started.iter_mut().map(|samples| median(samples)).collect();
    println!("-- {rounds} times {CROWD} VMs of 16 MiB and {QUOTA} CPUs at once");
    println!("{:<40} {:>8.3} ms", "start of the first", medians[0]);
    println!(
        "{:<40} {:>8.3} ms",
        "start of the hundredth",
        medians[CROWD - 1]
    );
    println!(
        "{:<40} {:>8.3} ms",
        "starts of the first ten",
        median(&mut medians[..10])
    );
    println!(
        "{:<40} {:>8.3} ms",
        "starts of the last ten",
        median(&mut medians[CROWD - 10..])
    );
    used.sort_by(f64::total_cmp);
    let (least, most) = (used[0], used[used.len() - 1]);
    println!(
        "{:<40} {:>8.4} CPUs, {least:.4} to {most:.4}",
        "used by each that spins",
        median(&mut used)
    );
}

/// What each VM's process uses while all can.
fn shares(crowd: &[Child]) -> Vec<f64> {
    let times = || -> Vec<f64> { crowd.iter().map(cpu_seconds).collect() };
    // Past the period in which they began.
    std::thread::sleep(Duration::from_millis(500));
    let (begun, before) = (Instant::now(), times());
    std::thread::sleep(WINDOW);
    let wall = begun.elapsed().as_secs_f64();
    let after = times();
    before
        .iter()
        .zip(after)
        .map(|(before, after)| (after - before) / wall)
        .collect()
}

/// CPU time of the process that runs the VM.
fn cpu_seconds(supervisor: &Child) -> f64 {
    let pid = supervisor.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let vm: i32 = children.trim().parse().unwrap();
    harness::cpu_time(vm).as_secs_f64()
}
