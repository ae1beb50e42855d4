//! How a program is started, and what it is given: what a supervisor says to the process that starts it, and that does.

use super::Handed;
use super::ending::FAILED;
use crate::passing::hear;
use kvmlet_sys::process::{self, Ended};
use kvmlet_sys::{signals, standard_error};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a program is given, in the order in which it goes over the socket.
pub(super) struct Given {
    /// Standard input, output and error.
    pub streams: [OwnedFd; 3],
    /// The instance's lock.
    pub lock: OwnedFd,
    /// Where it says that it runs.
    pub ready: OwnedFd,
    /// Where it serves the control socket, if it does.
    pub control: Option<OwnedFd>,
}

/// How it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum How {
    /// By a program that is executed.
    Executed,
    /// From a snapshot, by the one for that.
    Restored,
    /// In a process that was forked for it, which knows its configuration.
    Here,
    /// From the file that it was suspended to.
    Resumed,
}

/// What stands before an exit code, and not before the number of a signal.
pub(super) const EXITED: u8 = 1;

pub(super) fn of_end(ended: Ended) -> [u8; 2] {
    match ended {
        Ended::Exited(code) => [EXITED, code],
        Ended::Killed(signal) => [0, signal as u8],
    }
}

impl Given {
    pub fn all(&self) -> Vec<BorrowedFd<'_>> {
        let streams = self.streams.iter();
        let others = [&self.lock, &self.ready].into_iter().chain(&self.control);
        streams.chain(others).map(AsFd::as_fd).collect()
    }

    fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut all = descriptors.into_iter();
        Some(Self {
            streams: [all.next()?, all.next()?, all.next()?],
            lock: all.next()?,
            ready: all.next()?,
            control: all.next(),
        })
    }
}

/// What is asked for: how it is started, and what the program is given. None when nobody is there any more.
pub(super) fn asked(socket: &OwnedFd) -> io::Result<Option<(How, Given)>> {
    let Some((how, descriptors)) = hear(socket)? else {
        return Ok(None);
    };
    let known = [How::Executed, How::Restored, How::Here, How::Resumed];
    let how = known.into_iter().find(|known| *known as i32 == how);
    let given = Given::of(descriptors).ok_or(Errno::BADF)?;
    Ok(Some((how.ok_or(Errno::INVAL)?, given)))
}

/// Is the program, with what it was given, to its end.
pub(super) fn run(here: impl FnOnce(Handed) -> u8, given: Given) -> ! {
    let Given {
        streams: [input, output, error],
        lock,
        ready,
        control,
    } = given;
    let set_up = || -> io::Result<()> {
        dup2_stdin(&input)?;
        dup2_stdout(&output)?;
        dup2_stderr(&error)?;
        // It stays open as long as this process lives, and what that starts knows that it is not its own.
        fcntl_setfd(&lock, FdFlags::empty())?;
        signals::block_none()
    };
    if set_up().is_err() {
        process::end(FAILED);
    }
    standard_error::is_another();
    drop((input, output, error));
    std::mem::forget(lock);
    process::end(here(Handed { ready, control }))
}

pub(super) fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
