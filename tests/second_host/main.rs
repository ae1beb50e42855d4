//! Ring 4: a second host, in QEMU with software emulation, that is what most users have: Debian's stock kernel,
//! hardware KVM (kvm_amd), cgroup v2 with all controllers, nf_tables, Landlock, three clock sources.
//!
//! A machine is brought up when a test needs one, and kept for the next; there are two at a time (`--test-threads 1` is
//! one). Its root is that of this host, below a layer of its own: every program, kernel, image and test executable is
//! at the path where it is here, and what is written there is gone with it. Commands run in login sessions, in systemd's
//! tree of cgroups. It has one CPU: with two, guests there hang now and then, by a fault of QEMU's that `machine`
//! describes.
//!
//! ```text
//! tests/second_host/kernel                                     # once: fetches the kernel
//! cargo test --test second_host                                # all
//! cargo test --test second_host -- jail                        # tests with `jail` in their names
//! cargo test --test second_host -- --run 'kvmlet doctor'       # any command there, for people
//! cargo test --test second_host -- --run - <script             # each line in turn, as it comes
//! ```
//!
//! `KVMLET_KILLS=1000` kills that many VMs instead of 60; `KVMLET_QEMU_ARGUMENTS="-monitor unix:/tmp/monitor,server=on,wait=off"`
//! shows what a machine that hangs is doing (`info registers -a`).
//!
//! # How to add a test
//!
//! What can run on both hosts belongs into another ring: `bare_metal` runs here as a whole, and so do the unit
//! tests that [`elsewhere::UNIT_TESTS`] names. What only this host can show is in a file for each topic here,
//! with a list `TESTS` of names and functions, which [`main`] adds up:
//!
//! ```ignore
//! pub const TESTS: &[Test] = &[("a_vm_boots", boots)];
//!
//! fn boots(host: &Host) {
//!     let output = host.sh("kvmlet boot --kernel $GUESTS/power_off --cmdline code=42").ended_with(42);
//! }
//! ```
//!
//! [`Host::sh`] is a script as root (`sh -eu`); [`Host::run`] takes a [`Task`] with a time, an environment, a user.
//! [`Host::start`] returns while it runs. `kvmlet` is in PATH; `$GUESTS` has the bare-metal guests, `$STOCK` is the
//! stock kernel, `$REPOSITORY` this checkout. When a task's first process ends, all else in its session is killed. A test leaves the
//! machine as it was. A test that fails tells the end of the machine's console.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

mod agent;
mod boots;
mod clocks;
mod disks;
mod elsewhere;
mod host;
mod initramfs;
mod kills;
mod machine;
mod paused;
mod services;
mod shares;
mod stock_kernel;
mod task;
mod wire;

use host::Host;
use kvmlet_harness as harness;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use task::Task;

/// A named test.
type Test = (&'static str, fn(&Host));

fn main() -> ExitCode {
    if let Some(code) = agent::program().or_else(paused::program) {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--run") {
        return run_commands(&words[1..]);
    }
    let mut arguments = Arguments::from_args();
    // Each has a machine for itself, and each machine is one busy thread.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments
        .test_threads
        .get_or_insert(processors.min(MACHINES));
    let missing = missing();
    let own = [
        boots::TESTS,
        clocks::TESTS,
        disks::TESTS,
        shares::TESTS,
        services::TESTS,
        stock_kernel::TESTS,
        paused::TESTS,
        kills::TESTS,
    ]
    .concat();
    let mut trials: Vec<Trial> = own
        .into_iter()
        .map(|(name, test)| trial(name.into(), test))
        .collect();
    if missing.is_none() {
        trials.extend(elsewhere::trials());
    }
    if let Some(reason) = missing {
        let count = trials.len();
        trials = trials
            .into_iter()
            .map(|trial| trial.with_ignored_flag(true))
            .collect();
        (arguments.ignored, arguments.include_ignored) = (false, false);
        let conclusion = libtest_mimic::run(&arguments, trials);
        println!(
            "SKIPPED: {count} tests on a second host, and those of other rings on it, did not run: {reason}"
        );
        return conclusion.exit_code();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for name in again().iter() {
        println!("TRIED TWICE: {name}");
    }
    conclusion.exit_code()
}

/// What is not there for a second host.
fn missing() -> Option<String> {
    if std::env::var_os("KVMLET_WITHOUT_SECOND_HOST").is_some() {
        return Some("left out on request (KVMLET_WITHOUT_SECOND_HOST)".into());
    }
    if Command::new(machine::QEMU)
        .arg("--version")
        .output()
        .is_err()
    {
        return Some(format!(
            "there is no {} (Debian: qemu-system-x86)",
            machine::QEMU
        ));
    }
    let kernel = machine::kernel().join("vmlinuz");
    (!kernel.exists()).then(|| {
        format!(
            "nothing at {}: run `tests/second_host/kernel` first",
            kernel.display()
        )
    })
}

/// How many machines there are at a time, at the most: 2 GB of memory each.
const MACHINES: usize = 2;

/// How much longer than on a real host the tests of other rings wait there.
const PATIENCE: &str = "4";

/// Brings a machine up.
fn bring_up() -> Result<Host, String> {
    let kvmlet = Path::new(env!("CARGO_BIN_EXE_kvmlet")).parent().unwrap();
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    Host::bring_up(&[
        ("PATH", format!("{}:{system}", kvmlet.display())),
        ("GUESTS", text(harness::program(""))),
        ("STOCK", text(machine::kernel().join("vmlinuz"))),
        ("REPOSITORY", env!("CARGO_MANIFEST_DIR").into()),
        (harness::BUILT, "1".into()),
        (harness::patience::FACTOR, PATIENCE.into()),
    ])
}

/// Machines that are up, and that nobody uses at this moment.
static IDLE: Mutex<Vec<Host>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<Host>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that is idle, or a new one.
fn machine() -> Result<Host, String> {
    let host = idle().pop();
    host.map_or_else(bring_up, Ok)
}

/// Tests that have failed once, and what for.
static AGAIN: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn again() -> MutexGuard<'static, Vec<String>> {
    AGAIN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test with what it takes to understand why it failed. Processors that are emulated stand still for seconds where
/// this host is busy, and guests of guests with them; so a test that has failed has one more try, on a new machine, and
/// the ring ends with a list of those.
fn trial(name: String, test: impl Fn(&Host) + Send + 'static) -> Trial {
    let of = name.clone();
    Trial::test(name, move || {
        let Err(failure) = attempt(&test)? else {
            return Ok(());
        };
        println!("once again on a new machine: {failure}");
        again().push(of.clone());
        attempt(&test)?.map_err(Failed::from)
    })
}

/// Runs a test on a machine, which is given up if the test fails.
fn attempt(test: &impl Fn(&Host)) -> Result<Result<(), String>, String> {
    let host = machine()?;
    let start = Instant::now();
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&host))) else {
        println!("{:.1} s ", start.elapsed().as_secs_f64());
        idle().push(host);
        return Ok(Ok(()));
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let (text, console) = (text.unwrap_or_default(), host.console());
    Ok(Err(format!(
        "{text}\n--- console of the second host\n{console}"
    )))
}

/// Runs commands for people: those that are given, or with `-` each line of standard input.
fn run_commands(commands: &[String]) -> ExitCode {
    let host = match missing().map_or_else(bring_up, Err) {
        Ok(host) => host,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    let mut code = 0;
    for command in commands {
        let lines: Box<dyn Iterator<Item = String>> = match command.as_str() {
            "-" => Box::new(std::io::stdin().lock().lines().map_while(Result::ok)),
            _ => Box::new([command.clone()].into_iter()),
        };
        for line in lines {
            println!("$ {line}");
            let output = host.run(Task::new(["sh", "-c", &line]).patience(600));
            print!("{}{}", output.stdout, output.stderr);
            code = output.code();
            if code != 0 {
                println!("[{code}]");
            }
        }
    }
    ExitCode::from(code as u8)
}
