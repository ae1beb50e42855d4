//! What a supervisor and the [process that holds](super::holding) what its VM has of the host say to each other.

use crate::passing::{hear, say};
use kvmlet_sys::wait::{self, Slot, Until};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Asked for: the VM is about to be there again.
pub(super) const ROUSE: i32 = 0;
/// Asked for: the VM is not there, or soon will not be.
const DOZE: i32 = 1;
/// Asked for: that the VM is suspended.
pub(super) const SUSPEND: i32 = 2;
/// Told: somebody wants something of a VM that is not there. Answers are 0, or the number of an error.
pub(super) const WANTED: i32 = -1;
/// Told: who was to suspend it has ended. A pipe with what it has said goes along.
pub(super) const ENDED: i32 = -2;
/// Told: what is missing from now on. A pipe with that in words goes along.
pub(super) const TOLD: i32 = -3;
/// Words are no longer, in bytes.
pub(super) const LONGEST_WORDS: usize = 2048;

/// The supervisor's end.
pub(super) struct Nap {
    socket: OwnedFd,
    wanted: bool,
    /// What whoever was to suspend it said at its end.
    ended: Option<String>,
    told: Vec<String>,
    gone: bool,
    dozes: bool,
}

impl Nap {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            wanted: false,
            ended: None,
            told: Vec::new(),
            gone: false,
            dozes: false,
        }
    }

    /// What is waited for.
    pub fn slot(&self) -> Slot<'_> {
        match self.gone {
            true => Slot::NOTHING,
            false => Slot::readable(self.socket.as_fd()),
        }
    }

    /// Is the other process gone?
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Hears what was told.
    pub fn hear(&mut self) {
        while !self.gone && wait::one(self.slot(), Until::Now).unwrap_or(false) {
            self.next();
        }
    }

    /// Is it wanted, since this was asked last?
    pub fn is_wanted(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }

    /// What whoever was to suspend it has said, if it has ended since this was asked last.
    pub fn has_ended(&mut self) -> Option<String> {
        self.ended.take()
    }

    /// What is missing, of which nobody was told yet.
    pub fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Has what is for a VM that is not there wait (true), or go to it.
    pub fn doze(&mut self, dozes: bool) -> io::Result<()> {
        if self.dozes == dozes {
            return Ok(());
        }
        self.ask(if dozes { DOZE } else { ROUSE })?;
        self.dozes = dozes;
        Ok(())
    }

    /// Has the VM suspended. What has come of that is seen.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.ask(SUSPEND)?;
        // There is one at a time.
        self.ended = None;
        Ok(())
    }

    fn ask(&mut self, what: i32) -> io::Result<()> {
        say(&self.socket, what, &[])?;
        loop {
            match self.next() {
                Some(0) => return Ok(()),
                Some(error @ 1..) => return Err(io::Error::from_raw_os_error(error)),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn next(&mut self) -> Option<i32> {
        let heard = hear(&self.socket).ok().flatten();
        let Some((said, pipes)) = heard else {
            self.gone = true;
            return None;
        };
        match said {
            WANTED => self.wanted = true,
            ENDED => self.ended = Some(words(pipes)),
            TOLD => self.told.push(words(pipes)),
            _ => {}
        }
        Some(said)
    }
}

/// What is in a pipe at this moment, as one line.
fn words(pipes: Vec<OwnedFd>) -> String {
    let mut bytes = [0; LONGEST_WORDS];
    // Whoever has its other end may live on.
    let read = |pipe: OwnedFd| {
        let there = wait::one(Slot::readable(pipe.as_fd()), Until::Now)?;
        if there {
            File::from(pipe).read(&mut bytes)
        } else {
            Ok(0)
        }
    };
    let count = pipes.into_iter().next().map_or(Ok(0), read).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}
