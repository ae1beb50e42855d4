//! Who is called what: a directory of symbolic links, which lead nowhere and are made and read as a whole.

use crate::{Error, InstanceId, Name};
use kvmlet_sys::directory::Directory;
use rustix::fs::{AtFlags, RenameFlags, readlinkat, renameat_with, symlinkat, unlinkat};
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

    /// What an instance is called, as a link in its directory among `instances` says: so that not all names have to be read. It
    /// counts only where the name is the instance's.
    pub fn noted(&self, instances: &Directory, id: &InstanceId) -> Result<Option<Name>, Error> {
        let Ok(text) = readlinkat(instances, note(id), Vec::new()) else {
            return Ok(None);
        };
        let name = text.into_string().ok();
        let Some(name) = name.and_then(|name| Name::try_from(name).ok()) else {
            return Ok(None);
        };
        let is_its = self.holder(&name)?.as_ref() == Some(id);
        Ok(is_its.then_some(name))
    }

    /// Makes that link. One that is not made costs time, and nothing else.
    pub fn write_down(&self, instances: &Directory, id: &InstanceId, name: &Name) {
        let _ = unlinkat(instances, note(id), AtFlags::empty());
        if let Err(error) = symlinkat(name.as_str(), instances, note(id)) {
            log::debug!("the name of {} is not written down: {error}", id.short());
        }
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

fn note(id: &InstanceId) -> String {
    format!("{id}/name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_counts_only_where_it_is_true() {
        let place = tempfile::tempdir().unwrap();
        let own = |name: &str| {
            std::fs::create_dir(place.path().join(name)).unwrap();
            Directory::open(&place.path().join(name)).unwrap()
        };
        let (names, instances) = (Names(own("names")), own("instances"));
        let [one, other] = [0; 2].map(|_| InstanceId::random().unwrap());
        for id in [&one, &other] {
            own(&format!("instances/{id}"));
        }
        let [web, front]: [Name; 2] = ["web", "front"].map(|name| name.parse().unwrap());
        assert_eq!(names.noted(&instances, &one).unwrap(), None);
        names.give(&web, &one).unwrap();
        names.write_down(&instances, &one, &web);
        assert_eq!(names.noted(&instances, &one).unwrap(), Some(web.clone()));
        // As in a copy, or after a kill between two steps.
        names.write_down(&instances, &other, &web);
        assert_eq!(names.noted(&instances, &other).unwrap(), None);
        names.change(&web, &front).unwrap();
        assert_eq!(names.noted(&instances, &one).unwrap(), None);
        names.write_down(&instances, &one, &front);
        assert_eq!(names.noted(&instances, &one).unwrap(), Some(front));
        // Or what is no name at all.
        let link = place.path().join(format!("instances/{one}/name"));
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../../etc/passwd", &link).unwrap();
        assert_eq!(names.noted(&instances, &one).unwrap(), None);
    }
}
