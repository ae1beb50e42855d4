//! What the jail costs: `cargo bench --bench jail [-- --pairs N]`.
//!
//! `kvmlet boot` with and without a jail, one right after the other, the order changing from pair to pair. The
//! guest is bare metal: it writes a line and powers off. The clock starts before the process is spawned and stops
//! when it was waited for, so the end counts, too. A pair's difference is what the jail has cost; their median
//! is the figure. CPU time is that of both processes of kvmlet, on average. The steps are what `kvmlet -vv`
//! tells of them, in runs of their own; medians.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_harness as harness;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WARM_UP: usize = 5;
/// Runs for the steps.
const RUNS: usize = 50;

fn main() {
    let pairs = harness::argument("--pairs", 200);
    if let Err(reason) = harness::kvm() {
        println!("SKIPPED: {reason}");
        return;
    }
    let (mut free, mut jailed, mut difference) = (Vec::new(), Vec::new(), Vec::new());
    let (mut free_cpu, mut jailed_cpu) = (0.0, 0.0);
    for pair in 0..pairs + WARM_UP {
        let both = match pair % 2 {
            0 => [run("--no-jail"), run("--jail")],
            _ => {
                let jailed = run("--jail");
                [run("--no-jail"), jailed]
            }
        };
        if pair >= WARM_UP {
            let [(free_time, free_used), (jailed_time, jailed_used)] = both;
            free.push(free_time);
            jailed.push(jailed_time);
            difference.push(jailed_time - free_time);
            free_cpu += free_used / pairs as f64;
            jailed_cpu += jailed_used / pairs as f64;
        }
    }
    println!("-- {pairs} pairs: spawn -> process gone");
    let title = |name: &str| println!("{name:<44} {:>9} {:>9} {:>9}", "p25", "median", "p75");
    title("ms");
    report("without a jail", &mut free);
    report("in a jail", &mut jailed);
    report("what the jail costs", &mut difference);
    println!(
        "{:<44} {free_cpu:>9.3} and {jailed_cpu:.3}",
        "CPU time, without and with"
    );
    println!("-- steps, in {RUNS} runs");
    title("ms");
    for (step, mut times) in steps() {
        report(&step, &mut times);
    }
}

fn report(name: &str, samples: &mut [f64]) {
    samples.sort_by(f64::total_cmp);
    let quantile = |q: f64| samples[((samples.len() - 1) as f64 * q) as usize];
    let [low, middle, high] = [0.25, 0.5, 0.75].map(quantile);
    println!("{name:<44} {low:>9.3} {middle:>9.3} {high:>9.3}");
}

fn kvmlet(flag: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command
        .args(["boot", flag, "--kernel"])
        .arg(harness::program("ready"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Milliseconds from before the spawn until the process is gone, and of CPU time.
fn run(flag: &str) -> (f64, f64) {
    let mut command = kvmlet(flag);
    let before = cpu_time();
    let start = Instant::now();
    let status = command.status().expect("kvmlet starts");
    let time = start.elapsed();
    assert!(status.success());
    (ms(time), ms(cpu_time() - before))
}

/// What children that were waited for have used, and theirs.
fn cpu_time() -> Duration {
    // SAFETY: zero is valid for all fields, and the call stores the structure.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage), 0);
        usage
    };
    let time = |at: libc::timeval| Duration::new(at.tv_sec as u64, at.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Each step with its times, in their order.
fn steps() -> Vec<(String, Vec<f64>)> {
    let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..RUNS {
        let output = kvmlet("--jail").arg("-vv").output().expect("kvmlet starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in text.lines() {
            let Some((_, told)) = line.split_once("jail: ") else {
                continue;
            };
            let Some((time, step)) = told.split_once(" ms for ") else {
                continue;
            };
            let time = time.parse().expect("a number");
            match steps.iter_mut().find(|(name, _)| name == step) {
                Some((_, times)) => times.push(time),
                None => steps.push((step.into(), vec![time])),
            }
        }
    }
    steps
}
