//! The volumes without a name that belong to an instance which the book does not know yet, or not any more, while somebody
//! has the lock. Whoever fails or is killed meanwhile leaves them to nobody; they go at the end of the turn, or when the next
//! one begins.

use super::{LockedVolumes, Users, VolumeName};
use crate::{Error, sealed};
use std::path::PathBuf;

const MADE: &str = "volumes.made";
/// Names of 64 digits, as many as an instance can mount.
const MADE_BYTES: u64 = 1 << 20;

impl LockedVolumes<'_> {
    /// Notes a volume that goes unless an instance has it in the end.
    pub(super) fn note(&self, name: &VolumeName) -> Result<(), Error> {
        let mut made = self.made()?;
        made.push(name.clone());
        let text = sealed::seal(&made).map_err(|error| Error::file(&self.path())(error.into()))?;
        let written = self.around.write(MADE, &text);
        written.map_err(Error::file(&self.path()))
    }

    /// Removes what was noted, but for what an instance has.
    pub(super) fn clear_made(&self) -> Result<(), Error> {
        let made = self.made()?;
        if made.is_empty() {
            return Ok(());
        }
        let users = Users::of(self.book)?;
        for name in made {
            match self.remove(&name, &users) {
                Ok(()) | Err(Error::VolumeUsed { .. } | Error::NoVolume { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let removed = self.around.remove(MADE);
        removed.map_err(Error::file(&self.path()))
    }

    /// What is noted; nothing if the note is not whole.
    fn made(&self) -> Result<Vec<VolumeName>, Error> {
        let text = self.around.read(MADE, MADE_BYTES);
        let text = text.map_err(Error::file(&self.path()))?;
        Ok(text.map_or_else(Vec::new, |text| sealed::open(&text).unwrap_or_default()))
    }

    fn path(&self) -> PathBuf {
        self.around.path().join(MADE)
    }
}

impl Drop for LockedVolumes<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.clear_made() {
            log::warn!("volumes without a name may be left, until the next one is made: {error}");
        }
    }
}
