//! What kvmlet's commands have in common: how they read their command line, start the log, print, and tell of failures. For
//! kvmlet's own programs: nothing here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod agreed;
pub mod bench;
pub mod beside;
mod failed;
pub mod firecracker;
pub mod format;
mod line;
pub mod oci;
pub mod plain;
pub mod serve;
pub mod shown;
mod verbosity;

pub use agreed::agreed;
pub use failed::{Failed, dialect, speak};
pub use kvmlet_spec::{Advice, Remedy};
pub use line::parse;
pub use verbosity::{LongVerbosity, Verbosity};

use kvmlet_sys::output::write_whole;
use kvmlet_sys::{environment, standard_error};
use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

/// The exit code when a command has failed, or was used in a way that cannot be: a flag, a value, a configuration. As
/// docker's, and no code of a service by custom.
pub const FAILED: u8 = 125;

/// What a verb returns: the exit code of the process, or what went wrong.
pub type Outcome = Result<u8, Failed>;

/// Runs a command once nobody can steer it who must not, tells how it failed, and returns the exit code.
pub fn run(act: impl FnOnce() -> Outcome) -> u8 {
    let disarmed = environment::disarm().map_err(Failed::of_environment);
    let outcome = disarmed.and_then(|()| act());
    let code = outcome.unwrap_or_else(|failed| {
        failed.print();
        FAILED
    });
    standard_error::finish();
    code
}

/// Writes a result to standard output, all of it, also where that does not wait. A reader that goes away early (`| head`) wants no more, which is no error.
///
/// # Errors
/// When it cannot be written.
pub fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failed> {
    written(bytes.as_ref())
        .map_err(|error| Failed::in_vain("cannot write to standard output", error))
}

/// Writes the name of what was made, and goes on by itself, [the same](print()) way. Where that cannot be written, standard error has it, with
/// `what` it is: a command that has failed has made nothing.
pub fn print_name(name: &dyn Display, what: &str) {
    if let Err(error) = written(format!("{name}\n").as_bytes()) {
        let why = format!("cannot write to standard output: {error}");
        standard_error::say(format_args!("kvmlet: {what} {name}, and {why}"));
    }
}

fn written(bytes: &[u8]) -> io::Result<()> {
    match write_whole(io::stdout().as_fd(), bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
