//! Where on this host a copy goes.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::failure::{CopyError, host};

/// What the item that goes to a path may be, and what becomes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outermost {
    Anything,
    /// The path ends like one of a directory.
    Directory,
    /// What is in it goes into the directory of the path, which stays as it is itself.
    Filling,
}

pub(super) struct Destination {
    /// Where the item goes.
    pub(super) directory: OwnedFd,
    /// How it is called there, if not as it was.
    pub(super) new_name: Option<Vec<u8>>,
    pub(super) outermost: Outermost,
    /// That of the directory.
    pub(super) path: PathBuf,
}

impl Destination {
    /// What a path is about, as [`copy_from`](crate::agent::Agent::copy_from) says.
    pub(super) fn find(path: &Path) -> Result<Self, CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| openat(CWD, path, flags, Mode::empty());
        let bytes = path.as_os_str().as_bytes();
        let fills = bytes.ends_with(b"/.");
        let means_directory = fills || bytes.ends_with(b"/");
        match (open(path), path.file_name()) {
            (Ok(directory), _) => Ok(Self {
                directory,
                new_name: None,
                outermost: match fills {
                    true => Outermost::Filling,
                    false => Outermost::Anything,
                },
                path: path.to_path_buf(),
            }),
            (Err(error @ (Errno::NOENT | Errno::NOTDIR)), Some(name))
                if error == Errno::NOENT || !means_directory =>
            {
                let around = match path.parent() {
                    Some(parent) if parent != Path::new("") => parent,
                    _ => Path::new("."),
                };
                Ok(Self {
                    directory: open(around).map_err(host("open", around))?,
                    new_name: Some(name.as_bytes().to_vec()),
                    outermost: match means_directory {
                        true => Outermost::Directory,
                        false => Outermost::Anything,
                    },
                    path: around.to_path_buf(),
                })
            }
            (Err(error), _) => Err(host("copy to", path)(error)),
        }
    }
}

/// The last part of a guest's path, which a copy has for a name.
pub(super) fn own_name(path: &[u8]) -> Result<Vec<u8>, CopyError> {
    let name = Path::new(OsStr::from_bytes(path)).file_name();
    let name = name.ok_or_else(|| CopyError::Nameless(String::from_utf8_lossy(path).into()))?;
    Ok(name.as_bytes().to_vec())
}
