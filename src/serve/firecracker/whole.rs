//! The last file with all of a VM's memory, which later ones can be the difference to.

use super::fault::Fault;
use kvmlet_vmm::snapshot::{Saved, SnapshotId};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// It, and what the VM calls it.
#[derive(Clone, Debug)]
pub struct Whole {
    pub id: SnapshotId,
    /// Whatever its name is by now. A client may put differences into it.
    file: Arc<File>,
}

impl Whole {
    /// A snapshot in an open file, if it has a name that a VM knows.
    pub fn of(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let saved = Saved::from_file(Path::new("it"), file.try_clone().ok()?).ok()?;
        let id = saved.state.whole_id();
        let file = Arc::new(file);
        (id != SnapshotId::default()).then_some(Self { id, file })
    }

    /// The same of a file that a VM goes on from.
    pub fn at(path: &Path) -> Option<Self> {
        Self::of(&kvmlet_sys::regular::open(path).ok()?)
    }

    /// Opens it, as it is by now.
    pub fn open(&self) -> Result<Saved, Fault> {
        let fault = |why: &dyn std::fmt::Display| {
            Fault(format!(
                "Create snapshot error: the file with all of the VM's memory, to which this is to be the difference: {why}. \
                 Take a Full one."
            ))
        };
        let file = self.file.try_clone().map_err(|error| fault(&error))?;
        Saved::from_file(Path::new("it"), file).map_err(|error| fault(&error))
    }

    /// Is it the file of that name?
    pub fn is_at(&self, path: &Path) -> bool {
        let found = std::fs::metadata(path).ok().zip(self.file.metadata().ok());
        found.is_some_and(|(there, own)| (there.dev(), there.ino()) == (own.dev(), own.ino()))
    }

    /// Another file that has what is in this one, and what has changed since.
    pub fn replaced(&self, file: &File) -> io::Result<Self> {
        Ok(Self {
            id: self.id,
            file: Arc::new(file.try_clone()?),
        })
    }
}
