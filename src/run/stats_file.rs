//! The file that a configuration has statistics written to.

use crate::StatsSink;
use kvmlet_sys::whole_file::{Error, WholeFile};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

/// A file for statistics, which was found to be writable.
#[derive(Debug)]
pub struct StatsFile(WholeFile);

/// Whether the last snapshot is there.
#[derive(Clone, Debug, Default)]
pub struct Written {
    failed: Rc<Cell<bool>>,
}

impl StatsFile {
    /// Looks whether it can be written: a VM that has run for an hour should not end with a file that cannot.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(path: &Path) -> Result<Self, Error> {
        WholeFile::open(path).map(Self)
    }

    /// Writes each snapshot, and tells when that begins to fail: once in a row. It is no reason to end a VM that runs. The
    /// file is nobody else's, for a process in the jail must not have it.
    pub fn sink(self, tell: fn(Error)) -> (StatsSink, Written) {
        let written = Written::default();
        let failed = written.failed.clone();
        let sink = move |text: &[u8]| {
            let written = self.0.write(text);
            let failed_before = failed.replace(written.is_err());
            match written {
                Err(error) if !failed_before => tell(error),
                _ => {}
            }
        };
        (Box::new(sink), written)
    }
}

impl Written {
    /// Could the last snapshot not be written?
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }
}
