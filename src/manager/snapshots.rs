//! Snapshots of instances: where they are, and what was asked of whom they are of.
//!
//! A snapshot is a file anywhere, and may come from anybody. What it says of itself is only under which id it is noted here, in
//! the book of who has taken it: so nobody else's file says which files of this host its VM has.

use crate::id::is_beginning;
use crate::locked::locked;
use crate::sealed;
use crate::templates::{Template, Templates, staying};
use crate::{Asked, Book, Error, InstanceId, Moment, Name};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::regular::is_same;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What is locked by who notes or forgets one: no id, so no snapshot.
const GATE: &str = "gate";
const SNAPSHOTS: &str = "snapshots";
/// No note is longer: as what was asked of an instance.
const NOTE_BYTES: u64 = 4 << 20;

/// The snapshots that are noted in a book.
#[derive(Debug)]
pub struct Snapshots(Directory);

/// Nobody else notes or forgets snapshots.
#[must_use = "it ends with this"]
#[derive(Debug)]
pub struct SnapshotsLock {
    _file: File,
}

/// A snapshot of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Under which it is noted, which is what is written in the file.
    pub id: InstanceId,
    /// Where the file was put.
    pub path: PathBuf,
    /// When it was taken.
    pub made: Moment,
    /// What the instance was called then.
    pub name: Option<Name>,
    /// What was asked of it.
    pub asked: Asked,
    /// What it is the template of, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// The file of the snapshot since which it has what has changed, if it is such a one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
}

impl Snapshots {
    /// Those of a book.
    ///
    /// # Errors
    /// When their place cannot be made.
    pub fn of(book: &Book) -> Result<Self, Error> {
        let around = book.directory();
        let made = around.subdirectory(SNAPSHOTS);
        made.map(Self)
            .map_err(|error| Error::file(&around.path().join(SNAPSHOTS))(error))
    }

    /// Waits until nobody else is between a note and the name of its file, which is told where it takes long. It is over when what
    /// is returned is dropped.
    ///
    /// # Errors
    /// When there can be no lock, or whoever has it keeps it.
    pub fn lock(&self) -> Result<SnapshotsLock, Error> {
        let _file = locked(&self.0, GATE)?;
        Ok(SnapshotsLock { _file })
    }

    /// Notes one, before its file has its name, by who has locked them.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn note(&self, kept: &Kept) -> Result<(), Error> {
        let name = kept.id.as_str();
        let written = sealed::seal(kept)
            .map_err(Into::into)
            .and_then(|text| self.0.write(name, &text));
        written.map_err(|error| Error::file(&self.0.path().join(name))(error))
    }

    /// The one that is noted under an id, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn find(&self, id: &InstanceId) -> Result<Option<Kept>, Error> {
        let path = self.0.path().join(id.as_str());
        let text = self.0.read(id.as_str(), NOTE_BYTES);
        let text = text.map_err(Error::file(&path))?;
        let kept = text.map(|text| sealed::open(&text)).transpose();
        kept.map_err(Error::broken(&path))
    }

    /// All that can be read, the newest first.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(&self) -> Result<Vec<Kept>, Error> {
        let names = self.0.names().map_err(Error::file(self.0.path()))?;
        let ids = names.into_iter().filter_map(|name| name.try_into().ok());
        let mut all: Vec<Kept> = ids
            .filter_map(|id: InstanceId| self.find(&id).ok().flatten())
            .collect();
        all.sort_by_key(|kept| std::cmp::Reverse((kept.made, kept.id.clone())));
        Ok(all)
    }

    /// The first that needs a file, as its base, of those whose files are there, which `has_place` tells. It stays so as long as
    /// snapshots are [locked](Self::lock).
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn needing(
        &self,
        file: &Path,
        has_place: impl Fn(&Kept) -> bool,
    ) -> Result<Option<Kept>, Error> {
        let mut all = self.list()?.into_iter();
        let needs = |kept: &Kept| {
            let base = kept.base.as_deref();
            base.is_some_and(|base| is_same(base, file)) && has_place(kept)
        };
        Ok(all.find(needs))
    }

    /// Those that are more templates than there may be, or take more of the disk.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn surplus(&self, templates: &Templates) -> Result<Vec<Kept>, Error> {
        let all = self.list()?.into_iter();
        let all = all.filter(|kept| kept.template.is_some());
        let used = all.filter_map(|kept| Some((templates.use_of(&kept.path)?, kept)));
        let mut used: Vec<_> = used.collect();
        used.sort_by_key(|((at, _), _)| std::cmp::Reverse(*at));
        let stay = staying(used.iter().map(|((_, bytes), _)| *bytes));
        used.drain(..stay.min(used.len()));
        Ok(used.into_iter().map(|(_, kept)| kept).collect())
    }

    /// The one of an id, or of the beginning of one.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn resolve(&self, reference: &str) -> Result<Kept, Error> {
        let mut all = self.list()?;
        all.retain(|kept| is_beginning(reference) && kept.id.as_str().starts_with(reference));
        match all.len() {
            0 => Err(Error::NoSnapshot {
                reference: reference.into(),
            }),
            1 => Ok(all.swap_remove(0)),
            count => Err(Error::Ambiguous {
                reference: reference.into(),
                count,
            }),
        }
    }

    /// Forgets one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, id: &InstanceId) -> Result<(), Error> {
        let removed = self.0.remove(id.as_str());
        removed.map_err(|error| Error::file(&self.0.path().join(id.as_str()))(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MOST_TEMPLATES;
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    #[test]
    fn what_was_noted_is_found_until_it_is_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let snapshots = Snapshots::of(&book).unwrap();
        let kept = |at: u32| Kept {
            id: InstanceId::random().unwrap(),
            path: format!("/tmp/{at}").into(),
            made: Moment::now(),
            name: Some("web".parse().unwrap()),
            asked: Asked::new(InstanceId::random().unwrap(), "nginx"),
            template: None,
            base: None,
        };
        let (first, second) = (kept(1), kept(2));
        assert_eq!(snapshots.find(&first.id).unwrap(), None);
        snapshots.note(&first).unwrap();
        snapshots.note(&second).unwrap();
        assert_eq!(snapshots.find(&first.id).unwrap(), Some(first.clone()));
        assert_eq!(snapshots.list().unwrap().len(), 2);
        assert_eq!(snapshots.resolve(&first.id.as_str()[..20]).unwrap(), first);
        for (text, known) in [("", false), ("web", false), (second.id.as_str(), true)] {
            assert_eq!(snapshots.resolve(text).is_ok(), known, "{text}");
        }
        snapshots.forget(&first.id).unwrap();
        assert_eq!(snapshots.list().unwrap(), std::slice::from_ref(&second));
        // What is not whole is nothing.
        let file = place.path().join("book/snapshots").join(second.id.as_str());
        std::fs::write(&file, "{}").unwrap();
        assert!(snapshots.find(&second.id).is_err());
        assert_eq!(snapshots.list().unwrap(), []);
    }

    #[test]
    fn those_go_that_were_not_used_for_the_longest_time() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let templates = Templates::of(&book).unwrap();
        let snapshots = Snapshots::of(&book).unwrap();
        let kept = |number: u32| {
            let template = Template {
                request: format!("{number:02x}").repeat(32),
                facts: BTreeMap::new(),
            };
            let path = templates.path(&template);
            let file = File::create(&path).unwrap();
            // A later one was made later, and all before this test.
            let age = Duration::from_secs(u64::from(1000 - number));
            let times = std::fs::FileTimes::new().set_accessed(SystemTime::now() - age);
            file.set_times(times).unwrap();
            Kept {
                id: InstanceId::random().unwrap(),
                path,
                made: Moment::now(),
                name: None,
                asked: Asked::new(InstanceId::random().unwrap(), "nginx"),
                template: Some(template),
                base: None,
            }
        };
        let mut all: Vec<Kept> = (0..MOST_TEMPLATES as u32 + 2).map(kept).collect();
        let surplus = |all: &[Kept]| {
            all.iter().for_each(|kept| snapshots.note(kept).unwrap());
            let surplus = snapshots.surplus(&templates).unwrap();
            surplus.into_iter().map(|kept| kept.id).collect::<Vec<_>>()
        };
        assert_eq!(surplus(&all), [all[1].id.clone(), all[0].id.clone()]);
        templates
            .use_now(all[0].template.as_ref().unwrap())
            .unwrap();
        assert_eq!(surplus(&all), [all[2].id.clone(), all[1].id.clone()]);
        // Other snapshots have no limit, wherever they are.
        all[1].template = None;
        all[2].path = place.path().join("elsewhere");
        assert_eq!(surplus(&all), []);
    }
}
