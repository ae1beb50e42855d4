//! `kvmlet bench` with the real runtimes of this host, through the command. What is not installed is skipped aloud.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

mod cache;
mod containers;
mod io;
mod page;
mod stand_ins;

use kvmlet_harness as harness;
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use std::process::{Command, ExitCode};

/// A name, what it needs (an error tells what is missing), and a test.
type Test = (&'static str, fn() -> Result<(), String>, fn());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut missing = Vec::new();
    let trial = |(name, needs, test): &Test| {
        let (reason, test) = (needs().err(), *test);
        let trial = Trial::test(*name, move || -> Result<(), Failed> {
            test();
            Ok(())
        });
        let ignored = reason.is_some();
        missing.extend(reason.map(|reason| format!("SKIPPED: {name}: {reason}")));
        trial.with_ignored_flag(ignored)
    };
    let trials: Vec<Trial> = [containers::TESTS, io::TESTS, page::TESTS, stand_ins::TESTS]
        .concat()
        .iter()
        .map(trial)
        .collect();
    // Asking for ignored tests cannot make programs appear. One at a time: they measure, and look for leftovers.
    arguments.ignored = false;
    arguments.include_ignored = false;
    arguments.test_threads = Some(1);
    if !arguments.list {
        build();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    for line in missing {
        println!("{line}");
    }
    conclusion.exit_code()
}

/// Brings `kvmlet-bench` and `kvmlet-serve` up to date, which `kvmlet` executes from its own directory: cargo has done so only if
/// all packages are tested.
fn build() {
    let kvmlet = Path::new(env!("CARGO_BIN_EXE_kvmlet"));
    let profile = match kvmlet.parent().and_then(Path::file_name) {
        Some(name) if name == "debug" => "dev".as_ref(),
        name => name.unwrap(),
    };
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--bins"])
        .args(["--package", "kvmlet-bench", "--package", "kvmlet-serve"])
        .arg("--profile")
        .arg(profile)
        .status();
    assert!(
        status.unwrap().success(),
        "kvmlet-bench and kvmlet-serve do not build"
    );
}

/// Is there a program of this name?
fn program(name: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if found {
        Ok(())
    } else {
        Err(format!("there is no {name} (apt-get install {name})"))
    }
}
