//! Where the guest's console goes; and what is told of a guest that crashed while nobody saw what it wrote there.

use crate::Error;
use kvmlet_sys::process;
use kvmlet_vmm::vm::{self, ExitReason, VmHandle};
use rustix::stdio::stdout;
use std::fs::File;
use std::os::fd::AsFd;

/// Standard output.
pub(crate) struct ConsoleOutput {
    /// Without Rust's line buffer: a guest's prompt has no line end.
    pub file: File,
    /// Nobody sees what is written there.
    pub is_null: bool,
}

impl ConsoleOutput {
    /// To be called while this process may still look at its files.
    pub fn open() -> Result<Self, Error> {
        let fd =
            rustix::io::fcntl_dupfd_cloexec(stdout(), 0).map_err(Error::host("standard output"))?;
        let is_null = process::is_null(fd.as_fd());
        let file = File::from(fd);
        Ok(Self { file, is_null })
    }
}

/// Tells the last lines of a console that nobody has seen, if its guest crashed.
pub(crate) fn tell(vm: &VmHandle, end: Result<ExitReason, &Error>, is_null: bool) {
    let (what, crashed) = match end {
        Ok(reason) => (
            reason.to_string(),
            matches!(reason, ExitReason::Panic | ExitReason::TripleFault),
        ),
        Err(error) => (
            error.to_string(),
            matches!(error, Error::Vm(vm::Error::Failed(_))),
        ),
    };
    if !crashed || !(is_null || vm.lost_output()) {
        return;
    }
    match vm.last_lines() {
        lines if lines.is_empty() => log::error!("{what}; it had written nothing to its console"),
        lines => log::error!(
            "{what}; the last lines of its console, which nobody saw:\n{}",
            lines.join("\n")
        ),
    }
}
