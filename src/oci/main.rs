//! The command `kvmlet-oci`, which `kvmlet pull` and other verbs about images execute.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

use std::process::ExitCode;

fn main() -> ExitCode {
    kvmlet_command::run(kvmlet_oci::verbs::run).into()
}
