//! Why a VM ended, and what that means as an exit code.

use std::fmt;

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// The guest powered off; its init reported the exit code of the service, 0 if it reported none.
    Shutdown {
        /// The service's exit code.
        code: u8,
    },
    /// The guest asked for a reset (`reboot`).
    Reset,
    /// The guest kernel panicked; [`last_lines`](super::VmHandle::last_lines) has what it said.
    Panic,
    /// A vCPU met an exception while handling a double fault, which ends a machine (Intel SDM vol. 3A §6.15).
    TripleFault,
    /// The VM was stopped from outside.
    Stopped,
}

impl ExitReason {
    /// The exit code of a command that ran this VM. A shutdown passes on the service's own code; the others
    /// are what a shell shows for a process that ended in a like way (128 plus a signal's number).
    ///
    /// | reason | code | like |
    /// |---|---|---|
    /// | reset | 129 | SIGHUP: hung up, to start again |
    /// | panic | 134 | SIGABRT: gave up by itself |
    /// | triple fault | 139 | SIGSEGV: crashed |
    /// | stopped | 143 | SIGTERM: told to end |
    pub const fn exit_code(self) -> u8 {
        match self {
            ExitReason::Shutdown { code } => code,
            ExitReason::Reset => 129,
            ExitReason::Panic => 134,
            ExitReason::TripleFault => 139,
            ExitReason::Stopped => 143,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Shutdown { code } => {
                write!(f, "the guest powered off with exit code {code}")
            }
            ExitReason::Reset => write!(f, "the guest asked for a reset"),
            ExitReason::Panic => write!(f, "the guest kernel panicked"),
            ExitReason::TripleFault => write!(f, "the guest crashed with a triple fault"),
            ExitReason::Stopped => write!(f, "the VM was stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ExitReason::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_have_distinct_codes() {
        let reasons = [Shutdown { code: 0 }, Reset, Panic, TripleFault, Stopped];
        let codes: HashSet<u8> = reasons.iter().map(|reason| reason.exit_code()).collect();
        assert_eq!(codes.len(), reasons.len());
    }
}
