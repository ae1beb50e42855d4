//! Templates: snapshots of instances whose services were ready, from which others of the same go on instead of booting.
//!
//! Each is a file in the book, which is called by the digest of what was asked for. What has to be as it was for the template to
//! be that still (the image's content, the kernel, the processor) is in its note.

use crate::{Book, Error};
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A user has no more templates: those that were not used for the longest time go.
pub const MOST_TEMPLATES: usize = 32;
/// No more of a disk is taken by all of them together, but for the one that was used last.
pub const MOST_TEMPLATE_BYTES: u64 = 8 << 30;

const TEMPLATES: &str = "templates";
/// What is locked by who makes one: no digest, so no template.
const LOCK: &str = "lock";

/// What a template is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The digest of what was asked for: 64 hexadecimal digits.
    pub request: String,
    /// What else it is made of, and which that was.
    pub facts: BTreeMap<String, String>,
}

impl Template {
    /// What of the facts is another than then.
    pub fn changed<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = &'a str> {
        let facts = now.facts.iter();
        let gone = self
            .facts
            .keys()
            .filter(|key| !now.facts.contains_key(*key));
        let others = facts.filter(|(key, fact)| self.facts.get(*key) != Some(*fact));
        others.map(|(key, _)| key).chain(gone).map(String::as_str)
    }
}

/// Where the templates of a book are.
#[derive(Debug)]
pub struct Templates(Directory);

/// Nobody else makes that template. It is over when this is dropped, or its process ends.
#[must_use = "it ends with this"]
#[derive(Debug)]
pub struct TemplateLock {
    _file: File,
}

impl Templates {
    /// Those of a book.
    ///
    /// # Errors
    /// When their place cannot be made.
    pub fn of(book: &Book) -> Result<Self, Error> {
        let around = book.directory();
        let made = around.subdirectory(TEMPLATES);
        made.map(Self)
            .map_err(|error| Error::file(&around.path().join(TEMPLATES))(error))
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.0
    }

    /// Where the one of that is, if there is one.
    pub fn path(&self, template: &Template) -> PathBuf {
        self.0.path().join(&template.request)
    }

    /// Something goes on from it, or it was made: it is the last that goes.
    ///
    /// # Errors
    /// When that cannot be noted, at the file itself.
    pub fn use_now(&self, template: &Template) -> Result<(), Error> {
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: time(UTIME_NOW),
            last_modification: time(UTIME_OMIT),
        };
        let noted = utimensat(
            &self.0,
            &template.request,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        );
        noted.map_err(|error| Error::file(&self.path(template))(error.into()))
    }

    /// Is it this user's own file? Nobody goes on from what somebody else has put there, or from what only looks like a file.
    pub fn is_own(&self, template: &Template) -> bool {
        let found = self.path(template).symlink_metadata();
        let own = rustix::process::geteuid().as_raw();
        found.is_ok_and(|found| found.is_file() && found.uid() == own)
    }

    /// When the one of that file was used last, and what it takes of the disk; none if it is no template that is here.
    pub(crate) fn use_of(&self, file: &Path) -> Option<((i64, i64), u64)> {
        let found = match file.parent() == Some(self.0.path()) {
            true => file.symlink_metadata().ok()?,
            false => return None,
        };
        let used = (found.atime(), found.atime_nsec());
        Some((used, found.blocks() * 512))
    }

    /// Keeps others from making that one; none if somebody does so.
    ///
    /// # Errors
    /// When there can be no lock.
    pub fn try_lock(&self, template: &Template) -> Result<Option<TemplateLock>, Error> {
        let digits = template.request.get(..15);
        let byte = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let file = self.0.open_or_make(LOCK).and_then(|file| {
            let is_ours = byte_lock::try_lock(&file, byte.unwrap_or_default())?;
            Ok(is_ours.then_some(TemplateLock { _file: file }))
        });
        file.map_err(|error| Error::file(&self.0.path().join(LOCK))(error))
    }
}

/// How many of those of such sizes may stay, of which the first was used last.
pub(crate) fn staying(bytes: impl Iterator<Item = u64>) -> usize {
    let mut sum = 0u64;
    let fits = |bytes: &u64| {
        sum = sum.saturating_add(*bytes);
        sum <= MOST_TEMPLATE_BYTES
    };
    bytes.take(MOST_TEMPLATES).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(request: &str, facts: &[(&str, &str)]) -> Template {
        let facts = facts
            .iter()
            .map(|(key, fact)| ((*key).into(), (*fact).into()));
        Template {
            request: request.repeat(32),
            facts: facts.collect(),
        }
    }

    #[test]
    fn what_has_changed_is_told() {
        let then = template("0a", &[("kernel", "1"), ("image", "2"), ("gone", "3")]);
        let now = template("0a", &[("kernel", "1"), ("image", "3"), ("new", "4")]);
        let changed: Vec<&str> = then.changed(&now).collect();
        assert_eq!(changed, ["image", "new", "gone"]);
        assert_eq!(then.changed(&then).next(), None);
    }

    #[test]
    fn as_many_stay_as_there_is_room_for_and_always_the_last() {
        const GIB: u64 = 1 << 30;
        for (sizes, expected) in [
            (vec![], 1),
            (vec![1; 40], MOST_TEMPLATES),
            (vec![4 * GIB, 4 * GIB, 1], 2),
            (vec![9 * GIB, 1, 1], 1),
            (vec![u64::MAX, u64::MAX], 1),
        ] {
            assert_eq!(staying(sizes.iter().copied()), expected, "{sizes:?}");
        }
    }

    #[test]
    fn a_template_is_a_file_of_its_user() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let templates = Templates::of(&book).unwrap();
        let one = template("0a", &[]);
        let path = templates.path(&one);
        assert!(!templates.is_own(&one));
        std::fs::write(&path, "").unwrap();
        assert!(templates.is_own(&one));
        let other = place.path().join("other");
        std::fs::rename(&path, &other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(!templates.is_own(&one));
        if rustix::process::geteuid().is_root() {
            std::fs::rename(&other, &path).unwrap();
            std::os::unix::fs::chown(&path, Some(4_000_000), None).unwrap();
            assert!(!templates.is_own(&one));
        }
    }

    #[test]
    fn one_makes_a_template_and_others_make_others() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let templates = Templates::of(&book).unwrap();
        let (one, other) = (template("0a", &[]), template("0b", &[]));
        let lock = templates.try_lock(&one).unwrap();
        assert!(lock.is_some());
        assert!(templates.try_lock(&one).unwrap().is_none());
        assert!(templates.try_lock(&other).unwrap().is_some());
        drop(lock);
        assert!(templates.try_lock(&one).unwrap().is_some());
        assert_ne!(templates.path(&one), templates.path(&other));
    }
}
