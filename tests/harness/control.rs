//! VMs that can be asked for something.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has a command inherit a socket that listens, by the same number, which it is told.
pub fn with_control(command: &mut Command, socket: OwnedFd) -> &mut Command {
    with_descriptor(command, "--control-fd", socket)
}

/// Has a command inherit a descriptor by the same number, which it is told by that flag.
pub fn with_descriptor<'a>(
    command: &'a mut Command,
    flag: &str,
    socket: OwnedFd,
) -> &'a mut Command {
    command.arg(flag).arg(socket.as_raw_fd().to_string());
    let inherit = move || {
        // SAFETY: it only changes a flag, of a descriptor that the command owns.
        match unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFD, 0) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: it makes a system call, and nothing else.
    unsafe { command.pre_exec(inherit) }
}
