//! Standard input on its way to the guest.

use super::terminal::in_foreground;
use crate::Error;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::stdin;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Ctrl-], as in telnet and `virsh console`: ends the VM from the keyboard.
const ESCAPE: u8 = 0x1d;
const READ_BYTES: usize = 4096;
/// Keys that wait for a guest which takes none; those behind them are lost, as a terminal's are.
const MOST_KEYS: usize = 64 << 10;

/// What has been read and not passed on yet.
pub(crate) struct Input {
    open: bool,
    pending: Vec<u8>,
}

impl Input {
    pub fn new() -> Self {
        Self {
            open: true,
            pending: Vec::new(),
        }
    }

    /// Nothing is read of a pipe before the guest has taken what there is: so its writer waits, and nothing grows.
    /// Keys are, for the escape key may be among them.
    pub fn wants_more(&self, keys: bool) -> bool {
        self.open && (keys || self.pending.is_empty())
    }

    /// Reads what there is; true if the escape key was among the `keys`, if it is any.
    pub fn read(&mut self, keys: bool) -> bool {
        let mut buffer = [0; READ_BYTES];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) => self.open = false,
            Ok(count) => {
                let read = &buffer[..count];
                if self.pending.len() < MOST_KEYS {
                    self.pending.extend_from_slice(read);
                }
                return keys && read.contains(&ESCAPE);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal that another job has got just now.
            Err(Errno::IO) if keys && !in_foreground() => {}
            Err(error) => {
                log::debug!("standard input ends: {error}");
                self.open = false;
            }
        }
        false
    }

    /// Offers what is pending; `take` returns how many bytes it has taken.
    pub fn pass_on(&mut self, take: impl FnOnce(&[u8]) -> usize) {
        if !self.pending.is_empty() {
            let taken = take(&self.pending);
            self.pending.drain(..taken);
        }
    }
}

/// The way of a terminal's keys to a process that does not have the terminal.
pub(crate) struct Keys {
    input: Input,
    /// None when nobody reads any more.
    pipe: Option<OwnedFd>,
}

impl Keys {
    /// With the end that is the other process's standard input.
    pub fn new() -> Result<(Self, OwnedFd), Error> {
        let pipe = || {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            Ok((read, write))
        };
        let (read, write) = pipe().map_err(Error::host("a pipe for the keyboard"))?;
        let keys = Self {
            input: Input::new(),
            pipe: Some(write),
        };
        Ok((keys, read))
    }

    /// Whether the terminal is to be read.
    pub fn wants_more(&self) -> bool {
        self.pipe.is_some() && self.input.wants_more(true)
    }

    /// What is to be waited for until it takes more.
    pub fn full(&self) -> Option<BorrowedFd<'_>> {
        let pipe = self
            .pipe
            .as_ref()
            .filter(|_| !self.input.pending.is_empty());
        pipe.map(AsFd::as_fd)
    }

    /// Reads and passes on what there is; true if the escape key was pressed.
    pub fn read(&mut self) -> bool {
        let escape = self.input.read(true);
        self.pass_on();
        escape
    }

    /// Passes on what the other side has not had room for.
    pub fn pass_on(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let mut broken = false;
        self.input
            .pass_on(|keys| match rustix::io::write(pipe, keys) {
                Ok(count) => count,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(_) => {
                    broken = true;
                    keys.len()
                }
            });
        if broken {
            self.pipe = None;
        }
    }
}
