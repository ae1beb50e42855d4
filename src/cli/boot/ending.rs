//! How a VM's end becomes the command's.

use crate::{ExitCode, Failed};
use kvmlet_spec::Outcome;

/// The exit code, once what went wrong is told. A guest's own code stays where statistics were not written, unless it says
/// that all is well.
pub(super) fn code(outcome: &Outcome, unwritten: bool) -> ExitCode {
    if let Some(failure) = &outcome.failure {
        Failed::with(failure.clone(), failure.help.clone()).print();
    }
    match ExitCode::of(outcome) {
        code if unwritten && code.number() == 0 => ExitCode::Failed,
        code => code,
    }
}
