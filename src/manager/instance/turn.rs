//! Turns: whoever starts, restarts or removes an instance is the only one who does, until it is settled what has become of that.

use super::{Instance, LOCK};
use crate::Error;
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

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

/// For another process, which has the turn, too, as long as it has this open.
impl From<Turn> for OwnedFd {
    fn from(turn: Turn) -> Self {
        turn.0.into()
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
