//! Ring 2: small freestanding guests on real KVM, through the library.

#[path = "../harness/mod.rs"]
mod harness;

mod console;
mod endings;
mod lifecycle;
mod machine;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        console::TESTS,
        endings::TESTS,
        lifecycle::TESTS,
        machine::TESTS,
    ]
    .concat();
    harness::run(libtest_mimic::Arguments::from_args(), &tests, harness::kvm)
}
