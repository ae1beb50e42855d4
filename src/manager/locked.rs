//! Locks of whole files, which say so when they have to be waited for (`kvmlet_sys::lock`).

use crate::Error;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock::{self, Failure, PATIENCE};
use std::fs::File;

/// A file in a directory, made if it is not there, which nobody else has locked as long as it is open.
pub(crate) fn locked(directory: &Directory, name: &str) -> Result<File, Error> {
    let path = directory.path().join(name);
    let file = directory.open_or_make(name).map_err(Error::file(&path))?;
    lock::acquire(&file, &path, PATIENCE).map_err(|failure| match failure {
        Failure::Io(error) => Error::file(&path)(error),
        Failure::Interrupted(interrupted) => Error::Interrupted(interrupted),
        Failure::Busy { holder } => Error::Locked {
            path: path.clone(),
            holder,
        },
    })?;
    Ok(file)
}
