//! Turns: whoever starts, restarts or removes an instance is the only one who does, until it is settled what has become of that.

use super::{Instance, LOCK};
use crate::{Error, passing};
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The byte of the lock that is the turn's: no instance has run that often.
const TURN: u64 = 1 << 62;

/// The turn of whoever is about to start, restart or remove an instance. It is over when this is dropped, or this process has
/// ended, and so has every process that was given it.
///
/// It is not the instance: [owning](Instance::own) that takes no turn, and whoever has the turn may find that it runs.
#[derive(Debug)]
pub struct Turn(File);

impl Turn {
    /// Of an instance that is being made, which nobody else can see.
    pub(crate) fn of_new(directory: &Directory) -> io::Result<Self> {
        let lock = directory.open_or_make(LOCK)?;
        match byte_lock::try_lock(&lock, TURN)? {
            true => Ok(Self(lock)),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Of which another process, that was started before there was the turn, gets it from this one.
#[derive(Debug)]
pub struct Giving(OwnedFd);

impl Giving {
    /// This end, and that of the other process.
    ///
    /// # Errors
    /// When the host gives none.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = passing::pair()?;
        Ok((Self(ours), theirs))
    }

    /// Gives it the turn, which it has as long as it has open what comes; whether the service waits for somebody to be
    /// attached; and where somebody waits for the service, if somebody does.
    ///
    /// # Errors
    /// When it is gone.
    pub fn give(self, turn: Turn, attended: bool, ready: Option<OwnedFd>) -> io::Result<()> {
        let turn = [turn.0.as_fd()].into_iter();
        let all: Vec<_> = turn.chain(ready.as_ref().map(AsFd::as_fd)).collect();
        passing::say(self.0, attended.into(), &all)
    }
}

/// What another process [gives](Giving::give).
#[derive(Debug)]
pub struct Given {
    /// The turn, as long as it is open.
    pub turn: OwnedFd,
    /// The service is not started before somebody is attached to it.
    pub attended: bool,
    /// Where somebody waits for the service.
    pub ready: Option<OwnedFd>,
}

impl Given {
    /// Waits for it; none if it does not come to that.
    ///
    /// # Errors
    /// When that is no such socket.
    pub fn wait(from: impl AsFd) -> io::Result<Option<Self>> {
        let said = passing::hear(from)?;
        Ok(said.and_then(|(attended, descriptors)| {
            let mut descriptors = descriptors.into_iter();
            Some(Self {
                turn: descriptors.next()?,
                attended: attended != 0,
                ready: descriptors.next(),
            })
        }))
    }
}

impl Instance {
    /// Waits for the turn, however long that takes: a service may be starting, which can be [stopped](Self::control).
    ///
    /// # Errors
    /// When it was removed meanwhile, or the lock cannot be used.
    pub fn turn(&self) -> Result<Turn, Error> {
        let lock = self.open_lock()?;
        byte_lock::lock_in_turn(&lock, TURN).map_err(Error::file(&self.path(LOCK)))?;
        self.of_what_is_there(lock)
    }

    /// Takes the turn, if nobody has it.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn try_turn(&self) -> Result<Option<Turn>, Error> {
        let lock = self.open_lock()?;
        match byte_lock::try_lock(&lock, TURN).map_err(Error::file(&self.path(LOCK)))? {
            true => self.of_what_is_there(lock).map(Some),
            false => Ok(None),
        }
    }

    fn of_what_is_there(&self, lock: File) -> Result<Turn, Error> {
        match self.is_there()? {
            true => Ok(Turn(lock)),
            false => Err(Error::NotFound {
                reference: self.called(),
            }),
        }
    }
}
