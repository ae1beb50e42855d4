//! What the last checks of a service have said, in a file of its instance's directory, for who wants to know why it is not
//! well. It is written after each check, whole; who loses it has lost no more than that.

use crate::sealed;
use crate::{Error, Instance, Moment};
use kvmlet_sys::directory::Directory;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;

const FILE: &str = "health";
/// No such file is longer: each byte of a text may take six in JSON.
const FILE_BYTES: u64 = 256 << 10;
/// As many are kept, as docker does.
const KEPT: usize = 5;

/// How a check has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it began.
    pub start: Moment,
    /// When that was known.
    pub end: Moment,
    /// The exit code of its command; none if that did not end in time, or did not run at all.
    pub code: Option<u8>,
    /// What the command has written to both of its streams, or why there is no exit code. It is a guest's text.
    pub output: String,
}

/// What is known of the checks of the last run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// How many checks in a row have failed.
    pub failures: u32,
    /// The last ones, the newest last.
    pub results: VecDeque<CheckResult>,
}

impl CheckResult {
    /// The longest output that is kept, in bytes, as docker has it.
    pub const OUTPUT_BYTES: usize = 4096;
}

impl Checked {
    /// One more check has ended.
    pub(crate) fn add(&mut self, result: CheckResult, failures: u32) {
        self.failures = failures;
        self.results.push_back(result);
        if self.results.len() > KEPT {
            self.results.pop_front();
        }
    }

    pub(crate) fn write(&self, directory: &Directory) -> io::Result<()> {
        directory.write(FILE, &sealed::seal(self)?)
    }
}

impl Instance {
    /// What the checks of its service have said last; nothing if there were none.
    ///
    /// # Errors
    /// When that cannot be read, or is not what was written.
    pub fn checked(&self) -> Result<Option<Checked>, Error> {
        let path = self.directory().path().join(FILE);
        let text = self.directory().read(FILE, FILE_BYTES);
        let text = text.map_err(Error::file(&path))?;
        let checked = text.map(|text| sealed::open(&text));
        checked.transpose().map_err(Error::broken(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Asked, Book, InstanceId};

    #[test]
    fn the_last_results_are_kept_whatever_they_say() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let asked = Asked::new(InstanceId::random().unwrap(), "image");
        let (instance, _) = book.create(None, asked).unwrap();
        assert_eq!(instance.checked().unwrap(), None);
        let mut checked = Checked::default();
        for number in 0..7 {
            let result = CheckResult {
                start: Moment::now(),
                end: Moment::now(),
                code: Some(number),
                // What takes most room.
                output: "\u{1}".repeat(CheckResult::OUTPUT_BYTES),
            };
            checked.add(result, number.into());
            checked.write(instance.directory()).unwrap();
        }
        let read = instance.checked().unwrap().unwrap();
        assert_eq!(read, checked);
        assert_eq!(read.failures, 6);
        let codes: Vec<_> = read.results.iter().map(|result| result.code).collect();
        assert_eq!(codes, [2, 3, 4, 5, 6].map(Some));
        instance.directory().write(FILE, b"{}\n{}\n").unwrap();
        assert!(instance.checked().is_err());
    }
}
