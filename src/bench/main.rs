//! The command `kvmlet-bench`, which `kvmlet bench` executes.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    kvmlet_command::run(cli::run).into()
}
