//! `kvmlet bench`, which is a program of its own: what measures is no part of what is measured.

use super::beside::{become_program, help};
use super::{Outcome, Verbosity};
use clap::Args;
use std::ffi::{OsStr, OsString};

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
        let asked = help().filter(|words| words.first().is_some_and(|verb| verb == "bench"))?;
        let arguments = [OsString::from("help")]
            .into_iter()
            .chain(asked.into_iter().skip(1));
        Some(Self {
            arguments: arguments.collect(),
        })
    }

    pub fn run(self, verbosity: &Verbosity) -> Outcome {
        let verbosity = verbosity.arguments().map(OsStr::to_os_string);
        become_program(PROGRAM, verbosity.chain(self.arguments))
    }
}
