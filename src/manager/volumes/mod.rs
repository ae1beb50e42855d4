//! Volumes: disks with a file system of their own, which live longer than the instances that mount them.
//!
//! Each is a directory in `volumes` of the book's, renamed there when it is whole:
//!
//! - `disk`: what its guest has. Whoever has it open has [locked](kvmlet_sys::byte_lock) it: one writer, or any number of readers.
//! - `volume.json`: what is known of it, sealed.
//!
//! Who uses one is not noted with it: the book says what its instances have mounted. So that this is true while it is acted
//! upon, volumes are made and removed, and instances that mount some are put into the book, with the [lock](Volumes::lock).

mod name;
mod turn;
mod users;

pub use name::{NotAVolumeName, VolumeName};
pub use users::{User, Users};

use crate::book::removal::clear as clear_away;
use crate::locked::locked;
use crate::sealed;
use crate::{Asked, Book, Error, Moment};
use kvmlet_sys::directory::Directory;
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const VOLUMES: &str = "volumes";
const PENDING: &str = "pending-volumes";
const LOCK: &str = "volumes.lock";
const DISK: &str = "disk";
const NOTE: &str = "volume.json";
/// No note is longer, whatever its labels.
const NOTE_BYTES: u64 = 1 << 20;

/// The volumes of a book.
#[derive(Debug)]
pub struct Volumes {
    around: Directory,
    volumes: Directory,
    pending: Directory,
}

/// The same, while nobody else makes, removes or takes one.
#[derive(Debug)]
pub struct LockedVolumes<'a> {
    volumes: &'a Volumes,
    book: &'a Book,
    _lock: File,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// What it is called.
    pub name: VolumeName,
    /// What is known of it.
    pub note: Note,
    /// The file with its content.
    pub disk: PathBuf,
    /// How big that is, in bytes.
    pub bytes: u64,
    /// How much of that the host has had to store, in bytes.
    pub stored_bytes: u64,
}

/// What is written down with a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it was made.
    pub created: Moment,
    /// It goes with its instance: nobody has named it.
    pub anonymous: bool,
    /// What its user has noted about it.
    pub labels: BTreeMap<String, String>,
}

impl Note {
    /// Of a volume that is made now.
    pub fn new(anonymous: bool) -> Self {
        Self {
            created: Moment::now(),
            anonymous,
            labels: BTreeMap::new(),
        }
    }
}

impl Volumes {
    /// Those of a book.
    ///
    /// # Errors
    /// When their place cannot be made or used.
    pub fn of(book: &Book) -> Result<Self, Error> {
        let around = book.directory();
        let own = |name: &str| {
            let made = around.subdirectory(name);
            made.map_err(|error| Error::file(&around.path().join(name))(error))
        };
        Ok(Self {
            volumes: own(VOLUMES)?,
            pending: own(PENDING)?,
            around: around
                .try_clone()
                .map_err(|error| Error::file(around.path())(error))?,
        })
    }

    /// Keeps others from making, removing and taking volumes of this book.
    ///
    /// # Errors
    /// When somebody does not let go of the lock.
    pub fn lock<'a>(&'a self, book: &'a Book) -> Result<LockedVolumes<'a>, Error> {
        let file = locked(&self.around, LOCK)?;
        clear_away(&self.pending);
        let locked = LockedVolumes {
            volumes: self,
            book,
            _lock: file,
        };
        locked.clear_made()?;
        Ok(locked)
    }

    /// All of them, by their names.
    ///
    /// # Errors
    /// When they cannot be read. One that cannot be believed is told of in the log, and left out.
    pub fn list(&self) -> Result<Vec<Volume>, Error> {
        let mut names = self
            .volumes
            .names()
            .map_err(Error::file(self.volumes.path()))?;
        names.sort();
        let names = names.into_iter().filter_map(|name| name.parse().ok());
        let mut found = Vec::new();
        for name in names {
            match self.find(&name) {
                Ok(volume) => found.push(volume),
                // Somebody has removed it meanwhile.
                Err(Error::NoVolume { .. }) => {}
                Err(error) => log::warn!("volume `{name}` is left out: {error}"),
            }
        }
        Ok(found)
    }

    /// The one with that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &VolumeName) -> Result<Volume, Error> {
        let path = self.volumes.path().join(name.as_str());
        let directory = match self.volumes.existing_subdirectory(name.as_str()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoVolume { name: name.clone() });
            }
            other => other.map_err(Error::file(&path))?,
        };
        let path = path.join(NOTE);
        let text = directory.read(NOTE, NOTE_BYTES);
        let text = text.map_err(Error::file(&path))?.unwrap_or_default();
        let note = sealed::open(&text).map_err(Error::broken(&path))?;
        let disk = directory.path().join(DISK);
        let status = disk.symlink_metadata().map_err(Error::file(&disk))?;
        Ok(Volume {
            name: name.clone(),
            note,
            bytes: status.len(),
            stored_bytes: status.blocks() * 512,
            disk,
        })
    }
}

impl Deref for LockedVolumes<'_> {
    type Target = Volumes;

    fn deref(&self) -> &Volumes {
        self.volumes
    }
}

impl LockedVolumes<'_> {
    /// Makes a volume, whose disk is made by `make` at the path that it is given. All of it is there then, or nothing. One
    /// without a name is gone again if no instance of the book has it when the lock is let go of.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create<E: From<Error>>(
        &self,
        name: &VolumeName,
        note: &Note,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Volume, E> {
        let Volumes {
            pending, volumes, ..
        } = self.volumes;
        if note.anonymous {
            self.note(name)?;
        }
        let made = self.make(name, note, make).and_then(|()| {
            let (file, new) = (name.as_str(), RenameFlags::NOREPLACE);
            let path = volumes.path().join(file);
            let renamed = renameat_with(pending, file, volumes, file, new);
            renamed.map_err(|error| Error::file(&path)(error.into()).into())
        });
        match made {
            Ok(()) => Ok(self.volumes.find(name)?),
            Err(error) => {
                clear_away(pending);
                Err(error)
            }
        }
    }

    fn make<E: From<Error>>(
        &self,
        name: &VolumeName,
        note: &Note,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let pending = &self.volumes.pending;
        let path = pending.path().join(name.as_str());
        let directory = pending.subdirectory(name.as_str());
        let directory = directory.map_err(Error::file(&path))?;
        make(&directory.path().join(DISK))?;
        let text = sealed::seal(note).map_err(|error| Error::file(&path)(error.into()))?;
        let written = directory.write(NOTE, &text);
        Ok(written.map_err(Error::file(&path))?)
    }

    /// Makes a volume's disk that many bytes long; its guest finds that when it mounts it the next time. No disk gets shorter.
    ///
    /// # Errors
    /// When it is longer already.
    pub fn grow(&self, volume: &Volume, bytes: u64) -> Result<(), Error> {
        if bytes < volume.bytes {
            return Err(Error::VolumeShrinks {
                name: volume.name.clone(),
                bytes: volume.bytes,
            });
        }
        let file = OpenOptions::new().write(true).open(&volume.disk);
        let grown = file.and_then(|file| file.set_len(bytes));
        grown.map_err(Error::file(&volume.disk))
    }

    /// Removes a volume that no instance of the book has mounted.
    ///
    /// # Errors
    /// When one has, or there is no such volume.
    pub fn remove(&self, name: &VolumeName, users: &Users) -> Result<(), Error> {
        if let Some(called) = users.all_of(name) {
            return Err(Error::VolumeUsed {
                name: name.clone(),
                called,
            });
        }
        let Volumes {
            pending, volumes, ..
        } = self.volumes;
        let (file, new) = (name.as_str(), RenameFlags::NOREPLACE);
        match renameat_with(volumes, file, pending, file, new) {
            Ok(()) => clear_away(pending),
            Err(Errno::NOENT) => return Err(Error::NoVolume { name: name.clone() }),
            Err(error) => return Err(Error::file(&volumes.path().join(file))(error.into())),
        }
        Ok(())
    }
}

/// Has `remove` take an instance out of the book, and removes the volumes that it has and nobody has named, unless another
/// one has them. Whoever is killed in between leaves them to whoever makes or removes volumes next.
///
/// # Errors
/// What `remove` says, and when volumes cannot be removed.
pub fn remove_with<E: From<Error>>(
    book: &Book,
    asked: &Asked,
    remove: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    if users::volumes(asked).next().is_none() {
        return remove();
    }
    let volumes = Volumes::of(book)?;
    let locked = volumes.lock(book)?;
    for (name, _) in users::volumes(asked) {
        match volumes.find(name) {
            Ok(volume) if volume.note.anonymous => locked.note(name)?,
            Ok(_) | Err(Error::NoVolume { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    remove()?;
    Ok(locked.clear_made()?)
}

/// Removes the volumes of an instance that is gone that nobody has named, unless another one has them.
///
/// # Errors
/// When they cannot be removed.
pub fn forget(book: &Book, asked: &Asked) -> Result<(), Error> {
    remove_with(book, asked, || Ok(()))
}

#[cfg(test)]
mod tests;
