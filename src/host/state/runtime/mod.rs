//! The runtime directory: where kvmlet notes what its VMs have of this host.
//!
//! What is written there decides which cgroups are removed, whose processes are killed and which rules go. So it is
//! believed only if nobody else can have written it: the directory is this user's, nobody else can write to it, and
//! nobody but root decides where its path leads. It is opened once; all that is in it is reached through that.
//!
//! Which one: `/run/kvmlet` for whoever `/run` belongs to, which is root, also the root of a container. For others,
//! `kvmlet` in `$XDG_RUNTIME_DIR`, or in `/run/user/UID`, which is the same after a login, or else `/tmp/kvmlet-UID`.

mod place;

pub use kvmlet_sys::trusted::Error;

use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock;
use kvmlet_sys::trusted::{self, Problem, Purpose, vouch_for_parent};
use place::Place;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

const PURPOSE: Purpose = Purpose {
    keeps: "notes of what VMs have",
    variable: "XDG_RUNTIME_DIR",
};

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
        Err(failed.unwrap_or_else(|| {
            let path = "/tmp".into();
            let source = io::ErrorKind::NotFound.into();
            Problem::Unusable { path, source }.of(&PURPOSE)
        }))
    }

    /// The directory at a path, made if it is not there; the one around it is.
    ///
    /// # Errors
    /// When it cannot be made or opened, or cannot be trusted.
    pub fn at(path: &Path) -> Result<Self, Error> {
        let path = vouch_for_parent(path).map_err(|problem| problem.of(&PURPOSE))?;
        Self::open(&path)
    }

    /// Keeps what is in it for as long as it is open. What has not been touched for ten days is removed from /tmp, but
    /// not from a directory that somebody has locked (tmpfiles.d(5)); the note of a VM is written once.
    fn keep(&self) {
        if let Err(error) = lock::try_share(self.0.as_fd()) {
            log::debug!("{}: {error}", self.path().display());
        }
    }

    fn open(path: &Path) -> Result<Self, Error> {
        trusted::open(path, &PURPOSE).map(|directory| Self(Arc::new(directory)))
    }
}

impl Deref for RuntimeDirectory {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.0
    }
}
