//! VMs that are driven as Firecracker's clients drive theirs, by real requests on real sockets, with bare-metal guests.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

use kvmlet_harness as harness;

mod client;
mod command_line;
mod jailer;
mod lives;
mod running;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        command_line::TESTS,
        jailer::TESTS,
        lives::TESTS,
        running::TESTS,
    ]
    .concat();
    let arguments = libtest_mimic::Arguments::from_args();
    harness::run(arguments, &tests, harness::kvm)
}
