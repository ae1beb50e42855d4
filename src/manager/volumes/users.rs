//! Who has volumes mounted.

use super::VolumeName;
use crate::{Asked, Book, Error, InstanceId, Mount, State};
use std::collections::BTreeMap;

/// An instance that has a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: InstanceId,
    /// Its name, or the beginning of its id.
    pub called: String,
    /// It has a VM, or is about to, or will have the one that is in its file.
    pub runs: bool,
    /// It only reads.
    pub reads: bool,
}

/// Who has which volume, of all instances of a book.
#[derive(Debug, Default)]
pub struct Users(BTreeMap<VolumeName, Vec<User>>);

impl Users {
    /// Looks through a book.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(book: &Book) -> Result<Self, Error> {
        let mut users = Self::default();
        for view in book.list()?.instances {
            for (name, reads) in volumes(&view.asked) {
                users.0.entry(name.clone()).or_default().push(User {
                    id: view.id.clone(),
                    called: view.called().into(),
                    runs: view.is_alive() || view.state == State::Suspended,
                    reads,
                });
            }
        }
        Ok(users)
    }

    /// The same, where it is of interest: for an instance that mounts a volume.
    ///
    /// # Errors
    /// When the book cannot be read.
    pub fn of_mounts(book: &Book, asked: &Asked) -> Result<Self, Error> {
        match volumes(asked).next() {
            Some(_) => Self::of(book),
            None => Ok(Self::default()),
        }
    }

    /// Those of a volume.
    pub fn of_volume(&self, name: &VolumeName) -> &[User] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// What those of a volume are called; nothing if there is nobody.
    pub fn all_of(&self, name: &VolumeName) -> Option<String> {
        let users = self.of_volume(name).iter();
        let called: Vec<&str> = users.map(|user| user.called.as_str()).collect();
        (!called.is_empty()).then(|| called.join(", "))
    }

    /// Refuses what an instance is going to mount while another one that runs writes to it, or reads what this one would change.
    ///
    /// # Errors
    /// Names the volume and the other instance.
    pub fn refuse_taken(&self, id: &InstanceId, asked: &Asked) -> Result<(), Error> {
        for (name, reads) in volumes(asked) {
            let others = self.of_volume(name).iter();
            let mut others = others.filter(|user| user.runs && user.id != *id);
            if let Some(other) = others.find(|user| !(user.reads && reads)) {
                return Err(Error::VolumeTaken {
                    name: name.clone(),
                    called: other.called.clone(),
                    reads: other.reads,
                });
            }
        }
        Ok(())
    }
}

/// The volumes that an instance mounts, and whether it only reads them.
pub(super) fn volumes(asked: &Asked) -> impl Iterator<Item = (&VolumeName, bool)> {
    asked.service.mounts.iter().filter_map(|mount| match mount {
        Mount::Volume {
            name, read_only, ..
        } => Some((name, *read_only)),
        _ => None,
    })
}
