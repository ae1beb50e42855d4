//! Taking instances out of the book, and away.

use crate::{Error, InstanceId, State};
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;

/// Directories in directories that are cleared away; nobody makes deeper ones.
const DEPTH: usize = 8;

/// Takes an instance out of the book, at once and as a whole.
pub(super) fn take_out(
    instances: &Directory,
    pending: &Directory,
    id: &InstanceId,
) -> Result<(), Error> {
    let name = id.as_str();
    match renameat_with(instances, name, pending, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Err(Error::NotFound {
            reference: id.short().into(),
        }),
        Err(error) => Err(Error::file(&instances.path().join(name))(error.into())),
    }
}

/// Takes the lock of an instance that nobody can read, if nobody does something with it. None where there is no lock.
pub(super) fn own_unread(instances: &Directory, id: &InstanceId) -> Result<Option<File>, Error> {
    let path = instances.path().join(id.as_str());
    let own = || -> io::Result<Option<File>> {
        let directory = instances.existing_subdirectory(id.as_str())?;
        let lock = directory.open_or_make("lock")?;
        Ok(byte_lock::try_lock(&lock, 0)?.then_some(lock))
    };
    match own() {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(Error::InUse {
            called: id.short().into(),
            state: State::Running,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound {
            reference: id.short().into(),
        }),
        // What is not even a directory.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(Error::file(&path)(error)),
    }
}

/// Clears away what is not in the book any more, or never was.
pub(crate) fn clear(pending: &Directory) {
    for name in pending.names().unwrap_or_default() {
        if let Err(error) = remove(pending, &name, DEPTH) {
            let path = pending.path().join(&name);
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

fn remove(directory: &Directory, name: &str, depth: usize) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) if depth > 0 => {
            let inner = directory.existing_subdirectory(name)?;
            for name in inner.names()? {
                remove(&inner, &name, depth - 1)?;
            }
            match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
