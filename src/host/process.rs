//! Processes forked from this one.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with an exit code.
    Exited(u8),
    /// By a signal.
    Killed(i32),
}

/// A process forked from this one. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    fd: OwnedFd,
}

impl Child {
    /// The process's number, as this process sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; one that has ended gets none.
    ///
    /// # Errors
    /// When the process may not be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the process's end. It cannot be waited for again.
    ///
    /// # Errors
    /// When it is not there to be waited for.
    pub fn wait(self) -> io::Result<Ended> {
        let status = loop {
            match waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result?,
            }
        };
        match status.as_ref().and_then(|status| status.exit_status()) {
            Some(code) => Ok(Ended::Exited(code as u8)),
            None => {
                let signal = status.and_then(|status| status.terminating_signal());
                Ok(Ended::Killed(signal.unwrap_or(0)))
            }
        }
    }
}

/// Readable when the process has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Splits this process in two: the parent gets the child, and the child `None`. The child is killed when its
/// parent ends first, as long as it keeps its credentials (prctl(2), PR_SET_PDEATHSIG).
///
/// # Errors
/// When this process has more than one thread (the child would have one, and maybe the others' locks), or the
/// host gives no process.
pub fn fork() -> io::Result<Option<Child>> {
    // A directory has two links more than it has directories in it.
    if std::fs::metadata("/proc/self/task")?.nlink() != 3 {
        return Err(io::Error::other(
            "a process with several threads cannot be forked",
        ));
    }
    let parent = rustix::process::getpid();
    let alive = rustix::process::pidfd_open(parent, PidfdFlags::empty())?;
    // SAFETY: this is the only thread, so the child has all of what the parent has.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            die_with_parent()?;
            // It may have ended before it was to be noticed.
            let mut fds = [PollFd::new(&alive, PollFlags::IN)];
            let now = rustix::event::Timespec::default();
            if poll(&mut fds, Some(&now))? > 0 {
                std::process::exit(128 + libc::SIGKILL);
            }
            Ok(None)
        }
        pid => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            // The child is not waited for yet, so the number is its own.
            let fd = pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Some(Child { pid, fd }))
        }
    }
}

/// Has this process killed when its parent ends. To be said again after a change of user or group.
///
/// # Errors
/// What prctl says.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::KILL,
    ))?)
}
