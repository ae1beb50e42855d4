//! What a snapshot has to have changed since, and what others have.

use super::found::{find, has_place};
use super::opened::known;
use crate::Failed;
use crate::instances::book;
use kvmlet_manager::Snapshots;
use kvmlet_sys::regular::is_same;
use kvmlet_vmm::snapshot::{Error, Fault, Saved, SnapshotId};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The base of a snapshot that is being taken.
pub(crate) struct Base {
    pub saved: Saved,
    /// Its absolute path.
    pub path: PathBuf,
}

impl Base {
    /// By its file, or by its id in the book. It is whole, and has a name that is in the snapshot.
    pub fn find(reference: &str) -> Result<Self, Failed> {
        let path = Path::new(reference);
        let is_file = reference.contains('/') || path.is_file();
        let kept = match is_file {
            true => None,
            false => Some(find(&Snapshots::of(&book()?)?, reference)?),
        };
        let path = kept.map_or_else(|| path.into(), |kept| kept.path);
        let path = std::path::absolute(path).map_err(Failed::new)?;
        let whole = "leave out --base to save all of it";
        let opened = Saved::open(&path).map_err(|Error { path, fault }| match fault {
            Fault::Difference => Error {
                path,
                fault: Fault::NoBase,
            },
            fault => Error { path, fault },
        });
        let saved = opened.map_err(|error| Failed::new(error).help(whole))?;
        if saved.state.id == SnapshotId::default() {
            let fault = Fault::Nameless;
            return Err(Failed::new(Error { path, fault }).help(whole));
        }
        if known(&path).is_some_and(|kept| kept.template.is_some()) {
            let said = format!(
                "`{}` is a template, which kvmlet throws away",
                path.display()
            );
            return Err(Failed::new(said).help(whole));
        }
        Ok(Self { saved, path })
    }

    /// Refuses a place that is its own.
    pub fn refuse_at(&self, target: &Path) -> Result<(), Failed> {
        match is_same(&self.path, target) {
            false => Ok(()),
            true => Err(Failed::new(format!(
                "`{}` is the base, and of no use without it would be what takes its place",
                target.display()
            ))
            .help("name another file")),
        }
    }
}

impl Base {
    /// Refuses what would be the difference to a file that is gone by now, or another: to be asked while snapshots are locked.
    pub fn refuse_gone(&self) -> Result<(), Failed> {
        let look = |found: std::fs::Metadata| (found.dev(), found.ino());
        let own = self.saved.memory.metadata().map(look).ok();
        match own.is_some() && self.path.metadata().map(look).ok() == own {
            true => Ok(()),
            false => Err(Failed::new(format!(
                "`{}`, the base, was removed or replaced meanwhile",
                self.path.display()
            ))
            .help("leave out --base to save all of it")),
        }
    }
}

/// Refuses to do something to a file that others need that are there.
pub(super) fn refuse_needed(
    snapshots: &Snapshots,
    path: &Path,
    help: &'static str,
) -> Result<(), Failed> {
    match snapshots.needing(path, has_place)? {
        None => Ok(()),
        Some(kept) => Err(Failed::new(format!(
            "`{}` is the base of snapshot {}, which is of no use without it",
            path.display(),
            kept.id.short()
        ))
        .help(help)),
    }
}
