//! VMs that are driven as Firecracker's clients drive theirs, by real requests on real sockets, with bare-metal guests.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

use kvmlet_harness as harness;

mod cases;
mod client;
mod command_line;
mod description;
mod differences;
mod jailer;
mod lives;
mod metadata;
mod operations;
mod running;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::pager::init();
    // For `tests/clients/schemathesis_firecracker.py`: what requests are made from.
    if std::env::args().any(|word| word == "--openapi") {
        println!("{}", description::description());
        return ExitCode::SUCCESS;
    }
    let tests = [
        cases::TESTS,
        command_line::TESTS,
        jailer::TESTS,
        lives::TESTS,
        differences::TESTS,
        metadata::TESTS,
        running::TESTS,
    ]
    .concat();
    let arguments = libtest_mimic::Arguments::from_args();
    harness::run(arguments, &tests, harness::kvm)
}
