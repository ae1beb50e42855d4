//! The store's locks. All of them end with the process that has them.
//!
//! `gate` is held for as long as names are changed and files removed. A byte of `turns` is a layer's or an image's, and is
//! held by whoever adds it: two of them that share a byte wait for each other in vain, which does no harm. A file that is
//! in use has a lock to read it.

use super::{Error, Store};
use crate::Digest;
use kvmlet_sys::{byte_lock, lock};
use std::fs::File;
use std::time::Duration;

const GATE: &str = "gate";
const TURNS: &str = "turns";

/// The right to change names and to remove files.
#[derive(Debug)]
pub struct Gate(#[expect(dead_code, reason = "open")] File);

/// The right to add something.
#[derive(Debug)]
pub struct Turn(File);

impl Drop for Turn {
    fn drop(&mut self) {
        // A process that another thread is just starting has a copy for a moment.
        let _ = byte_lock::unlock_all(&self.0);
    }
}

/// Which byte is something's: locks go up to 2⁶³.
fn byte(digest: &Digest) -> u64 {
    let (first, _) = digest.0.split_at(8);
    first
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
        >> 2
}

impl Store {
    pub(super) fn gate(&self) -> Result<Gate, Error> {
        let path = self.directory.path().join(GATE);
        let file = self
            .directory
            .open_or_make(GATE)
            .map_err(Error::io(&path))?;
        match lock::acquire(&file, &path, lock::PATIENCE) {
            Ok(()) => Ok(Gate(file)),
            Err(lock::Failure::Io(source)) => Err(Error::Io { path, source }),
            Err(lock::Failure::Busy { holder }) => Err(Error::Busy { path, holder }),
            Err(lock::Failure::Interrupted(signal)) => Err(signal.into()),
        }
    }

    fn turns(&self) -> Result<File, Error> {
        let file = self.directory.open_or_make(TURNS);
        file.map_err(Error::io(self.directory.path()))
    }

    /// Waits for the right to add something, as long as somebody has it.
    pub(super) fn turn(&self, digest: &Digest) -> Result<Turn, Error> {
        let patience = lock::Patience {
            quiet: Duration::from_secs(1),
            limit: Duration::MAX,
        };
        let file = self.turns()?;
        let attempt = || match byte_lock::try_lock(&file, byte(digest)) {
            Ok(false) => None,
            other => Some(other.map(drop)),
        };
        let tell = || log::info!("waiting for another command that adds {digest}");
        let locked = lock::wait(patience, attempt, tell)?.unwrap_or(Ok(()));
        locked.map_err(Error::io(self.directory.path()))?;
        Ok(Turn(file))
    }

    /// The right to add something, if nobody has it.
    pub(super) fn turn_at_once(&self, digest: &Digest) -> Result<Option<Turn>, Error> {
        let file = self.turns()?;
        let locked = byte_lock::try_lock(&file, byte(digest));
        let locked = locked.map_err(Error::io(self.directory.path()))?;
        Ok(locked.then_some(Turn(file)))
    }

    /// All rights to add something, if nobody has one.
    pub(super) fn all_turns(&self) -> Result<Option<Turn>, Error> {
        let file = self.turns()?;
        let locked = byte_lock::try_lock_all(&file, false);
        let locked = locked.map_err(Error::io(self.directory.path()))?;
        Ok(locked.then_some(Turn(file)))
    }
}
