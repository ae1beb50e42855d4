//! A snapshot of what has changed since another one.

use super::fault::Fault;
use super::parts::{Tail, look};
use super::state::SnapshotId;
use crate::memory::Pages;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Pages of guest memory that are not as they are in another snapshot.
#[derive(Debug)]
pub struct Difference {
    /// That one, for messages.
    pub base: PathBuf,
    /// The file that has them, where they would be in a whole one. It can only be read.
    pub file: File,
    /// Which they are.
    pub pages: Pages,
}

impl Difference {
    /// Opens what is said to be the base of a difference, of memory of that size, if it is that and as it was.
    pub(super) fn base(
        path: &Path,
        id: SnapshotId,
        memory: u64,
        tail: &Tail,
    ) -> Result<File, Fault> {
        let (file, first) = look(path)?;
        let state = first.state;
        if state.base.is_some() {
            return Err(Fault::NoBase);
        }
        if state.id != id || state.machine.memory_bytes != memory {
            return Err(Fault::OtherBase);
        }
        match Tail::of(&file, memory, false)?.mark == tail.base_mark() {
            true => Ok(file),
            false => Err(Fault::ChangedBase),
        }
    }
}
