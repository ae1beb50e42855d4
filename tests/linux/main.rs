//! Ring 3: Linux guests, end to end through the command line, one at a time. A boot takes seconds where KVM
//! interprets guest kernels, so each test takes all it can from one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[path = "../images/stacks/made.rs"]
#[allow(dead_code)]
mod made;
#[path = "../images/stacks/ours.rs"]
mod ours;
#[path = "../images/stacks/seen.rs"]
mod seen;
#[path = "../../src/image/tarball.rs"]
#[allow(dead_code)]
mod tarball;

mod api;
mod balloon;
mod images;
mod instances;
mod registers;
mod restored;
mod script;
mod services;
mod snapshots;
mod stacks;
mod template;
mod tree;
mod unprivileged;
mod volumes;
mod warm;

use harness::Test;
use kvmlet_harness as harness;
use kvmlet_harness::packets;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const TESTS: &[Test] = &[
    ("a_service_runs_and_its_exit_code_comes_back", service),
    ("two_vcpus_and_a_reboot", two_vcpus_and_reboot),
    ("power_off_from_inside", power_off),
    ("a_kernel_panic_is_told_apart", panic),
];

/// Ten times what a boot takes on an idle interpreting host.
const DEADLINE: Duration = Duration::from_secs(200);

fn main() -> ExitCode {
    if let Some(code) = tree::program()
        .or_else(api::program)
        .or_else(images::program)
        .or_else(instances::program)
        .or_else(registers::program)
        .or_else(restored::program)
        .or_else(stacks::program)
        .or_else(template::program)
        .or_else(volumes::program)
    {
        return code;
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = [
        TESTS,
        api::TESTS,
        balloon::TESTS,
        images::TESTS,
        instances::TESTS,
        registers::TESTS,
        restored::TESTS,
        services::TESTS,
        snapshots::TESTS,
        stacks::TESTS,
        unprivileged::TESTS,
        volumes::TESTS,
        warm::TESTS,
    ]
    .concat();
    let code = harness::run(arguments, &tests, || {
        harness::kvm()?;
        if std::env::var_os("KVMLET_WITHOUT_LINUX").is_some() {
            return Err("skipped on request (KVMLET_WITHOUT_LINUX)".into());
        }
        for (what, script) in [("kernels", "kernels/build"), ("images", "images/build")] {
            let path = cache().join(what);
            if !path.exists() {
                return Err(format!(
                    "nothing at {}: run `{script}` first",
                    path.display()
                ));
            }
        }
        Ok(())
    });
    template::end();
    code
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache");
    base.unwrap_or_else(home).join("kvmlet")
}

struct Ended {
    code: Option<i32>,
    console: String,
}

/// Runs `kvmlet boot` with the default kernel and root to its end.
fn boot(arguments: &[&str]) -> Ended {
    let child = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
        .arg("boot")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("kvmlet starts");
    let pid = child.id();
    let (done, watch) = std::sync::mpsc::channel();
    let watchdog = std::thread::spawn(move || {
        if watch.recv_timeout(DEADLINE).is_err() {
            // SAFETY: the child has not been waited for, so the number is still its own.
            unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        }
    });
    let start = Instant::now();
    let output = child.wait_with_output().expect("an end");
    let _ = done.send(());
    watchdog.join().expect("a watchdog");
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    println!(
        "boot {arguments:?} took {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ended {
        code: output.status.code(),
        console,
    }
}

fn service() {
    let script = "echo cpus=$(nproc); grep MemTotal /proc/meminfo; echo name=$(hostname); \
                  echo \"$GREETING\" in $(pwd); exit 7";
    let ended = boot(&[
        "--memory",
        "64M",
        "--hostname",
        "tenant",
        "--workdir",
        "/tmp",
        "-e",
        "GREETING=hello, world",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let console = &ended.console;
    assert_eq!(ended.code, Some(7), "{console}");
    for line in ["cpus=1", "name=tenant", "hello, world in /tmp"] {
        assert!(console.contains(line), "no {line:?} in {console}");
    }
    let total = console
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .expect(console);
    let kib: u64 = total
        .trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .expect(total);
    // 64 MiB less the kernel itself.
    assert!((40 << 10..64 << 10).contains(&kib), "{kib} KiB");
    assert!(!console.contains("Linux version"), "{console}");
}

fn two_vcpus_and_reboot() {
    let ended = boot(&[
        "--cpus",
        "2",
        "--",
        "sh",
        "-c",
        "echo cpus=$(nproc); reboot -f",
    ]);
    assert!(ended.console.contains("cpus=2"), "{}", ended.console);
    assert_eq!(ended.code, Some(129), "{}", ended.console);
}

fn power_off() {
    let ended = boot(&["--memory", "64M", "-v", "--", "poweroff", "-f"]);
    assert_eq!(ended.code, Some(0), "{}", ended.console);
    // With `-v`, and only then, what the kernel says.
    let said = ended.console.contains("Linux version 6.12");
    assert!(said, "{}", ended.console);
}

/// A kernel that finds no init panics; that takes no user space.
fn panic() {
    let cmdline = "console=ttyS0 reboot=k panic=-1 rdinit=/nowhere root=/dev/none";
    let ended = boot(&["--memory", "64M", "--cmdline", cmdline]);
    assert!(ended.console.contains("Kernel panic"), "{}", ended.console);
    assert_eq!(ended.code, Some(134), "{}", ended.console);
}
