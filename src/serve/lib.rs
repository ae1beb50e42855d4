//! What other programs drive microVMs by: kvmlet's own API, and Firecracker's API and command line.
//!
//! A VM is a process of `kvmlet`, which this one starts and talks to by a channel ([`kvmlet_control::Channel`]): no byte that a
//! client sends is read in the process of a VM or in that of its supervisor.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod firecracker;
pub mod http;
mod jailer;
pub mod metadata;
pub mod v1;

use kvmlet_command::FAILED;
use kvmlet_command::firecracker::{FIRECRACKER, JAILER};
use kvmlet_command::serve::SERVE;
use kvmlet_sys::standard_error;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Runs the command line of this process, and returns its exit code.
pub fn run() -> u8 {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let name = Path::new(&name).file_name().and_then(verb);
    if let Some(run) = name.or_else(|| words.next().as_deref().and_then(verb)) {
        let words: Vec<OsString> = words.collect();
        return run(&words);
    }
    standard_error::say(format_args!(
        "error: this program is run by `kvmlet serve`, `kvmlet firecracker` and `kvmlet jailer`, or under the names `firecracker` and `jailer`"
    ));
    standard_error::finish();
    FAILED
}

/// What a word has this program be.
fn verb(word: &OsStr) -> Option<fn(&[OsString]) -> u8> {
    match word.to_str()? {
        FIRECRACKER => Some(firecracker::run),
        JAILER => Some(jailer::run),
        SERVE => Some(v1::run),
        metadata::WORD => Some(metadata::run),
        _ => None,
    }
}

/// Does a request to Firecracker's API ask for something? For who tries requests without a VM.
///
/// # Errors
/// What a client is told then.
pub fn understand(request: &http::Request) -> Result<(), String> {
    firecracker::understand(request)
}
