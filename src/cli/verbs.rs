//! The command `kvmlet-verbs`, which `kvmlet` executes for all that it does not do itself: `ps`, `exec`, `logs`, its help ...

use std::process::ExitCode;

fn main() -> ExitCode {
    kvmlet_cli::run_verb().into()
}
