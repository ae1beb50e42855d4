//! The `kvmlet` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let started = kvmlet::host::clock::process_start();
    kvmlet::cli::run(started)
}
