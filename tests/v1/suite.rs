//! kvmlet's own API, by real requests on a real socket, with bare-metal guests. Each answer is one that its document has.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

use kvmlet_harness as harness;

mod alone;
mod copies;
mod document;
mod events;
mod lives;
mod problems;
mod served;
mod streams;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        lives::TESTS,
        problems::TESTS,
        events::TESTS,
        copies::TESTS,
        streams::TESTS,
        alone::TESTS,
    ]
    .concat();
    let arguments = libtest_mimic::Arguments::from_args();
    harness::run(arguments, &tests, harness::kvm)
}
