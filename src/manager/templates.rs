//! Templates: snapshots of instances whose services were ready, from which others of the same go on instead of booting.
//!
//! Each is a file in the book, which is called by the digest of what was asked for. What has to be as it was for the template to
//! be that still (the image's content, the kernel, the processor) is in its note.

use crate::{Book, Error};
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

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

    /// Where the one of that is, if there is one.
    pub fn path(&self, template: &Template) -> PathBuf {
        self.0.path().join(&template.request)
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
