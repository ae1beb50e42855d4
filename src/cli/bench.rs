//! `kvmlet bench`, which is a program of its own: what measures is no part of what is measured.

use super::{Failed, Outcome, Verbosity};
use clap::Args;
use kvmlet_sys::{environment, users};
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

const PROGRAM: &str = "kvmlet-bench";

/// Measure what a microVM costs on this host, beside containers and processes.
#[derive(Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Bench {
    /// What to measure: see `kvmlet bench --help`.
    #[arg(
        value_name = "ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

impl Bench {
    /// What `kvmlet help bench` asks for: only the program knows.
    pub fn help() -> Option<Self> {
        let mut words = std::env::args_os().skip(1);
        let asked = words.next()? == "help" && words.next()? == "bench";
        let arguments = [OsString::from("help")].into_iter().chain(words);
        asked.then(|| Self {
            arguments: arguments.collect(),
        })
    }

    pub fn run(self, verbosity: &Verbosity) -> Outcome {
        let verbosity = verbosity.arguments().map(OsStr::to_os_string);
        become_program(verbosity.chain(self.arguments))
    }
}

/// Goes on as the program that lies beside this one, and no other of that name.
fn become_program(arguments: impl Iterator<Item = OsString>) -> Outcome {
    let own = std::env::current_exe()
        .map_err(|error| Failed::in_vain("kvmlet cannot find its own executable", error))?;
    let path = own.with_file_name(PROGRAM);
    let failed = |cause: String| Failed::new(format!("cannot run `{}`: {cause}", path.display()));
    let owner = path.symlink_metadata().map(|found| found.uid());
    // Whoever may write to the directory, such as /tmp, could have put it there.
    let trusted = [
        0,
        geteuid().as_raw(),
        own.metadata().map_or(0, |own| own.uid()),
    ];
    if let Ok(owner) = owner
        && !trusted.contains(&owner)
    {
        let cause = format!("it was put there by {}", users::describe(owner));
        return Err(failed(cause).help("install `kvmlet` and it in a directory of your own"));
    }
    // Rights that the file gives are for VMs. Without them it is the caller who decides what the program does.
    let variables = environment::drop_file_capabilities().map_err(Failed::of_environment)?;
    let mut command = Command::new(&path);
    command.args(arguments).envs(variables);
    let error = command.exec();
    Err(match error.kind() {
        ErrorKind::NotFound => failed("it is not installed".into())
            .help("build it with `cargo build --release --package kvmlet-bench`, and put it there"),
        _ => failed(error.to_string()),
    })
}
