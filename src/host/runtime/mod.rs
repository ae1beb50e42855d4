//! The runtime directory: where kvmlet notes what its VMs have of this host.
//!
//! What is written there decides which cgroups are removed, whose processes are killed and which rules go. So it is
//! believed only if nobody else can have written it: the directory is this user's, nobody else can write to it, and
//! nobody but root decides where its path leads. It is opened once; all that is in it is reached through that.
//!
//! Which one: `/run/kvmlet` for whoever `/run` belongs to, which is root, also the root of a container. For others,
//! `kvmlet` in `$XDG_RUNTIME_DIR`, or in `/run/user/UID`, which is the same after a login, or else `/tmp/kvmlet-UID`.

mod error;
mod place;

pub use error::Error;

use kvmlet_sys::directory::Directory;
use place::Place;
use rustix::fs::{FileType, FlockOperation, Mode, fchmod, flock};
use std::fs;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Who else may write: the group and all others.
const OTHERS_WRITE: u32 = 0o022;
const OTHERS: u32 = 0o077;

/// An open directory of this user alone, with what kvmlet notes about VMs. Clones share it.
#[derive(Clone, Debug)]
pub struct RuntimeDirectory(Arc<Directory>);

impl RuntimeDirectory {
    /// That of this process's user, made if it is not there. See the [module](self) for where it is.
    ///
    /// # Errors
    /// When there is no place for one, or there is one that cannot be trusted.
    pub fn of_user() -> Result<Self, Error> {
        let mut failed = None;
        for place in Place::all() {
            let result = match place.vouched() {
                Ok(path) => Self::open(&path),
                Err(error) => Err(error),
            };
            match result {
                Ok(directory) => {
                    if place.is_last() {
                        directory.keep();
                    }
                    return Ok(directory);
                }
                Err(error) if place.is_last() || !error.is_about_parent() => return Err(error),
                Err(error) => {
                    place.tell_unused(&error);
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::unusable("/tmp", io::ErrorKind::NotFound)))
    }

    /// The directory at a path, made if it is not there; the one around it is.
    ///
    /// # Errors
    /// When it cannot be made or opened, or cannot be trusted.
    pub fn at(path: &Path) -> Result<Self, Error> {
        Self::open(&place::vouch_for_parent(path)?)
    }

    /// Keeps what is in it for as long as it is open. What has not been touched for ten days is removed from /tmp, but
    /// not from a directory that somebody has locked (tmpfiles.d(5)); the note of a VM is written once.
    fn keep(&self) {
        if let Err(error) = flock(self.0.as_fd(), FlockOperation::NonBlockingLockShared) {
            log::debug!("{}: {error}", self.path().display());
        }
    }

    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::from_io(path, error);
        let directory = Directory::open_own(path).map_err(failed)?;
        let stat = directory.stat().map_err(failed)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::Foreign {
                path: path.into(),
                owner: stat.st_uid,
            });
        }
        let mode = stat.st_mode & 0o7777;
        if mode & OTHERS_WRITE != 0 {
            let path = path.into();
            return Err(Error::Writable { path, mode });
        }
        if mode & OTHERS != 0 {
            // Whoever can open a file can lock it. systemd makes directories in /run that all can read.
            fchmod(directory.as_fd(), Mode::RWXU).map_err(|error| failed(error.into()))?;
        }
        Ok(Self(Arc::new(directory)))
    }
}

impl Deref for RuntimeDirectory {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.0
    }
}

impl Error {
    /// What is to be said of a directory that cannot be opened.
    fn from_io(path: &Path, source: io::Error) -> Self {
        let Ok(there) = fs::symlink_metadata(path) else {
            return Self::unmade(path, source);
        };
        let path = path.to_path_buf();
        if there.uid() != rustix::process::geteuid().as_raw() {
            let owner = there.uid();
            return Self::Foreign { path, owner };
        }
        match FileType::from_raw_mode(there.mode()) {
            FileType::Directory => Self::unusable(path, source),
            _ => Self::NotADirectory { path },
        }
    }
}

#[cfg(test)]
mod tests;
