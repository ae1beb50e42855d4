//! How a VM's end becomes the command's.

use crate::host::{interrupt, seccomp};
use crate::run::{self, End, Ended, Error, Fate};
use crate::{ExitCode, Failed, Outcome};

/// A command that failed after somebody wanted its end has ended.
pub(super) fn interrupted(outcome: Outcome) -> Outcome {
    match (outcome, interrupt::interrupted_by()) {
        // That is why it failed.
        (Err(failed), Some(signal)) => {
            log::info!("ended by signal {signal}: {}", failed.first_line());
            Ok(ExitCode::Signal(signal).number())
        }
        (outcome, _) => outcome,
    }
}

/// The exit code, once what was not written is told. A guest's own code stays, unless that says that all is well.
pub(super) fn code(outcome: Result<run::Outcome, Error>) -> Outcome {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let signal = error.killed_by();
            let failed = Failed::from(error);
            let Some(signal) = signal else {
                return Err(failed);
            };
            failed.print();
            return Ok(ExitCode::Signal(signal).number());
        }
    };
    let code = match outcome.end {
        Ended::Here(End::Guest(reason)) => ExitCode::Guest(reason),
        Ended::Here(End::Escape) | Ended::There(Fate::Escaped) => ExitCode::Done,
        Ended::Here(End::Signal(signal))
        | Ended::There(Fate::Ended(signal) | Fate::Killed(signal)) => ExitCode::Signal(signal),
        Ended::There(Fate::Exited(seccomp::EXIT_CODE)) => ExitCode::Forbidden,
        Ended::There(Fate::Exited(code)) => ExitCode::Passed(code),
    };
    let code = code.number();
    match outcome.unwritten {
        Some(Some(error)) if code == 0 => Err(error.into()),
        Some(Some(error)) => {
            Failed::from(error).print();
            Ok(code)
        }
        // It was told when it happened.
        Some(None) if code == 0 => Ok(ExitCode::Failed.number()),
        _ => Ok(code),
    }
}
