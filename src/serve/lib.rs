//! What programs of other makers drive microVMs by, each as it knows it: Firecracker's API and command line.
//!
//! A VM is a process of `kvmlet`, which this one starts and talks to by a channel ([`kvmlet_control::Channel`]): no byte that a
//! client sends is read in the process of a VM or in that of its supervisor.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod firecracker;
mod http;

use kvmlet_sys::standard_error;
use std::ffi::OsString;
use std::path::Path;

/// What this program is called where it is Firecracker.
const FIRECRACKER: &str = "firecracker";
/// The exit code for a command line that cannot be: kvmlet's own.
const FAILED: u8 = 125;

/// Runs the command line of this process, and returns its exit code.
pub fn run() -> u8 {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let by_name = Path::new(&name)
        .file_name()
        .is_some_and(|it| it == FIRECRACKER);
    if by_name || words.next().is_some_and(|verb| verb == FIRECRACKER) {
        let words: Vec<OsString> = words.collect();
        return firecracker::run(&words);
    }
    standard_error::say(format_args!(
        "error: this program is run by `kvmlet firecracker`, or under the name `firecracker`"
    ));
    standard_error::finish();
    FAILED
}
