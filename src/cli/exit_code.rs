//! The one table of exit codes.

use kvmlet_spec::{Outcome, Reason};
use kvmlet_vmm::ExitReason;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitCode {
    /// What was asked for is done; a VM ended by the escape key, too.
    Done,
    /// `kvmlet doctor` has found something that keeps VMs from running.
    Unfit,
    /// A verb about instances has not done what it was asked for: as docker's, whose own code is for `run`.
    NotDone,
    /// kvmlet has failed, or was used in a way that cannot be: a flag, a value, a configuration. As docker's, and no
    /// code of a service by custom.
    Failed,
    /// A thread of a VM's process has made a system call that it is not allowed to: as a shell tells SIGSYS.
    Forbidden,
    /// By a signal, to kvmlet or to the VM's process.
    Signal(libc::c_int),
    /// As the guest has, whose service's code it may be.
    Guest(ExitReason),
}

impl ExitCode {
    /// That of a run.
    pub fn of(outcome: &Outcome) -> Self {
        let signal = outcome.signal.unwrap_or(libc::SIGKILL);
        let code = outcome.code.unwrap_or(0);
        match outcome.reason {
            Reason::Shutdown => Self::Guest(ExitReason::Shutdown { code }),
            Reason::Reset => Self::Guest(ExitReason::Reset),
            Reason::Panic => Self::Guest(ExitReason::Panic),
            Reason::TripleFault => Self::Guest(ExitReason::TripleFault),
            Reason::Stopped => Self::Guest(ExitReason::Stopped),
            Reason::Escape => Self::Done,
            Reason::Signal | Reason::Killed => Self::Signal(signal),
            Reason::Forbidden => Self::Forbidden,
            _ => Self::Failed,
        }
    }

    /// The code of the process.
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unfit | Self::NotDone => 1,
            Self::Failed => kvmlet_command::FAILED,
            Self::Forbidden => 128 + libc::SIGSYS as u8,
            Self::Signal(signal) => 128 + signal as u8,
            Self::Guest(reason) => reason.exit_code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/boot.md, by the words that each line begins with.
    #[test]
    fn the_manual_has_the_same_table() {
        let manual = include_str!("../../docs/boot.md");
        for (words, code) in [
            ("kvmlet failed, or was used wrongly", ExitCode::Failed),
            ("reset (`reboot`)", ExitCode::Guest(ExitReason::Reset)),
            ("kernel panic", ExitCode::Guest(ExitReason::Panic)),
            ("triple fault", ExitCode::Guest(ExitReason::TripleFault)),
            ("a thread of kvmlet made a system call", ExitCode::Forbidden),
            ("`kvmlet doctor` found", ExitCode::Unfit),
        ] {
            let mut lines = manual.lines();
            let line = lines.find(|line| line.starts_with(&format!("| {words}")));
            let line = line.unwrap_or_else(|| panic!("no line for {words}"));
            assert!(line.ends_with(&format!("| {} |", code.number())), "{line}");
        }
    }

    /// The table of docs/instances.md, likewise.
    #[test]
    fn the_manual_of_instances_has_the_same_table() {
        let manual = include_str!("../../docs/instances.md");
        for (words, code) in [
            ("it is done", ExitCode::Done),
            ("a verb is not done", ExitCode::NotDone),
            ("kvmlet has failed", ExitCode::Failed),
            (
                "the instance has ended before",
                ExitCode::Signal(libc::SIGKILL),
            ),
        ] {
            let mut lines = manual.lines();
            let line = lines.find(|line| line.starts_with(&format!("| {words}")));
            let line = line.unwrap_or_else(|| panic!("no line for {words}"));
            assert!(line.ends_with(&format!("| {} |", code.number())), "{line}");
        }
    }
}
