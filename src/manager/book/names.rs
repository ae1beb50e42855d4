//! Who is called what: a directory of symbolic links, which lead nowhere and are made and read as a whole.

use crate::{Error, InstanceId, Name};
use kvmlet_sys::directory::Directory;
use rustix::fs::{RenameFlags, readlinkat, renameat_with, symlinkat};
use rustix::io::Errno;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Names(Directory);

impl Names {
    pub fn in_directory(directory: Directory) -> Self {
        Self(directory)
    }

    /// Whose name it is, if it is anybody's.
    pub fn holder(&self, name: &Name) -> Result<Option<InstanceId>, Error> {
        self.read(name.as_str())
    }

    fn read(&self, name: &str) -> Result<Option<InstanceId>, Error> {
        match readlinkat(&self.0, name, Vec::new()) {
            Ok(id) => Ok(id.into_string().ok().and_then(|id| id.try_into().ok())),
            // What is not a link is nobody's name.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// All names, by the ids that have them. Of two that one id has, which only somebody else can have made, the first by
    /// the alphabet counts.
    pub fn by_id(&self) -> Result<BTreeMap<InstanceId, Name>, Error> {
        let mut found = BTreeMap::new();
        let names = self.0.names().map_err(Error::file(self.0.path()))?;
        for name in names
            .into_iter()
            .filter_map(|name| Name::try_from(name).ok())
        {
            let Some(id) = self.holder(&name)? else {
                continue;
            };
            let kept = found.entry(id).or_insert_with(|| name.clone());
            if name < *kept {
                *kept = name;
            }
        }
        Ok(found)
    }

    /// Gives a name that nobody has.
    pub fn give(&self, name: &Name, id: &InstanceId) -> Result<(), Error> {
        let given = symlinkat(id.as_str(), &self.0, name.as_str());
        given.map_err(|error| self.failed(name.as_str(), error))
    }

    /// Gives who has a name another one, which nobody has.
    pub fn change(&self, old: &Name, new: &Name) -> Result<(), Error> {
        let flags = RenameFlags::NOREPLACE;
        let changed = renameat_with(&self.0, old.as_str(), &self.0, new.as_str(), flags);
        changed.map_err(|error| self.failed(new.as_str(), error))
    }

    /// Takes a name away; one that nobody has is no error.
    pub fn take(&self, name: &Name) -> Result<(), Error> {
        let path = self.0.path().join(name.as_str());
        self.0.remove(name.as_str()).map_err(Error::file(&path))
    }

    fn failed(&self, name: &str, error: Errno) -> Error {
        Error::file(&self.0.path().join(name))(error.into())
    }
}
