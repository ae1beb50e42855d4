//! Directories of kvmlet's whose content is believed, because nobody else can have written it.
//!
//! Such a directory is this user's, nobody else can write to it, and nobody but this user and root decides where its path
//! leads. It is opened once; all that is in it is reached through that.

mod error;
mod way;

pub use error::{Error, Problem};
pub use way::{outer_user, vouch_for_own, vouch_for_parent};

use crate::directory::Directory;
use rustix::fs::{FileType, Mode, fchmod};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Who else may write: the group and all others.
pub const OTHERS_WRITE: u32 = 0o022;
const OTHERS: u32 = 0o077;

/// What a directory is for, for messages.
#[derive(Debug)]
pub struct Purpose {
    /// What is kept in it: "notes of what VMs have".
    pub keeps: &'static str,
    /// The environment variable by which a user says where it is.
    pub variable: &'static str,
}

/// Opens the directory at a path that was [vouched for](vouch_for_parent), or makes it; from then on it is open to this user
/// alone.
///
/// # Errors
/// When it cannot be made or opened, or is not this user's, or others may have written to it.
pub fn open(path: &Path, purpose: &'static Purpose) -> Result<Directory, Error> {
    open_or_make(path).map_err(|problem| problem.of(purpose))
}

fn open_or_make(path: &Path) -> Result<Directory, Problem> {
    let failed = |error: io::Error| Problem::from_io(path, error);
    let directory = Directory::open_own(path).map_err(failed)?;
    let stat = directory.stat().map_err(failed)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Problem::Foreign {
            path: path.into(),
            owner: stat.st_uid,
        });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        let path = path.into();
        return Err(Problem::Writable { path, mode });
    }
    if mode & OTHERS != 0 {
        // Whoever can open a file can lock it. systemd makes directories in /run that all can read.
        fchmod(directory.as_fd(), Mode::RWXU).map_err(|error| failed(error.into()))?;
    }
    Ok(directory)
}

impl Problem {
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
