//! What of a template's file its services read until they are ready: whoever goes on from a file that is on the disk alone has that
//! read beforehand, while the machine is put together. It is found out when that first happens.

use crate::{Error, InstanceId, Template, Templates};
use kvmlet_sys::page_cache;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// What two parts may be apart and are one: to read it costs less than to ask anew.
const GAP: u64 = 128 << 10;
/// No note of it is longer.
const MOST: u64 = 256 << 10;

/// Parts of a template's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Of which snapshot they are: another may have taken the place of that one.
    snapshot: InstanceId,
    /// First and last, which is none of it, in bytes.
    parts: Vec<(u64, u64)>,
}

impl WorkingSet {
    /// What the host has of a file in its page cache by now.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn look(snapshot: InstanceId, file: &File) -> io::Result<Self> {
        let parts = page_cache::parts(file, GAP)?;
        let parts = parts.into_iter().map(|part| (part.start, part.end));
        Ok(Self {
            snapshot,
            parts: parts.collect(),
        })
    }

    /// Has the host begin to read what is on the disk alone. Nobody waits for that.
    ///
    /// # Errors
    /// When the host does not take such advice.
    pub fn read_ahead(&self, file: &File) -> io::Result<()> {
        let parts = self.parts.iter().map(|&(start, end)| Range { start, end });
        let parts: Vec<_> = parts.collect();
        match page_cache::are_cold(file, &parts)? {
            true => page_cache::read_ahead(file, parts.into_iter()),
            false => Ok(()),
        }
    }
}

impl Templates {
    /// What is noted of a template which is that snapshot. What cannot be read is found out again.
    pub fn working_set(&self, template: &Template, snapshot: &InstanceId) -> Option<WorkingSet> {
        let text = self.directory().read(&name(template), MOST).ok()??;
        let set: WorkingSet = serde_json::from_slice(&text).ok()?;
        (set.snapshot == *snapshot).then_some(set)
    }

    /// Notes it.
    ///
    /// # Errors
    /// When it cannot be written, or would be too long.
    pub fn note_working_set(&self, template: &Template, set: &WorkingSet) -> Result<(), Error> {
        let path = self.directory().path().join(name(template));
        let failed = Error::file(&path);
        let text = serde_json::to_vec(set).map_err(|error| failed(error.into()))?;
        if text.len() as u64 >= MOST {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        self.directory()
            .write(&name(template), &text)
            .map_err(failed)
    }
}

/// Forgets what is noted of a template whose file is removed from there.
pub fn forget_working_set(template: &Template, file: &Path) {
    // Somewhere else it is a file as any other, and nothing is noted beside it.
    if file
        .file_name()
        .is_some_and(|own| *own == *template.request)
        && let Err(error) = std::fs::remove_file(file.with_file_name(name(template)))
        && error.kind() != io::ErrorKind::NotFound
    {
        log::info!("what is noted of a template stays: {error}");
    }
}

/// Beside the template's file.
fn name(template: &Template) -> String {
    format!("{}.pages", template.request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Book;

    #[test]
    fn it_is_of_one_snapshot() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let templates = Templates::of(&book).unwrap();
        let template = Template {
            request: "0a".repeat(32),
            facts: Default::default(),
        };
        let id = || InstanceId::random().unwrap();
        let set = WorkingSet {
            snapshot: id(),
            parts: vec![(0, 4096), (1 << 20, 2 << 20)],
        };
        assert_eq!(templates.working_set(&template, &set.snapshot), None);
        templates.note_working_set(&template, &set).unwrap();
        let found = |of: &InstanceId| templates.working_set(&template, of);
        assert_eq!(found(&set.snapshot), Some(set.clone()));
        assert_eq!(found(&id()), None);
        // Whatever it says is no more than advice.
        let file = tempfile::tempfile().unwrap();
        let odd = WorkingSet {
            parts: vec![(u64::MAX, 0), (5, u64::MAX), (0, 0)],
            ..set.clone()
        };
        odd.read_ahead(&file).unwrap();
        let path = templates.directory().path().join(name(&template));
        std::fs::write(&path, "[").unwrap();
        assert_eq!(found(&set.snapshot), None);
        forget_working_set(&template, &templates.path(&template).with_file_name("web"));
        assert!(path.exists());
        forget_working_set(&template, &templates.path(&template));
        assert!(!path.exists());
    }
}
