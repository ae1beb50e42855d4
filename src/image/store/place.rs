//! Where the store is: `images` in `/var/lib/kvmlet` for whoever `/var/lib` belongs to, which is root, also the root of a
//! container. For others in `kvmlet` in `$XDG_DATA_HOME`, or else in `~/.local/share` (XDG Base Directory Specification).
//! It is believed only if nobody else can have written it.

use super::Error;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::environment;
use kvmlet_sys::trusted::{self, Problem, Purpose, vouch_for_own, vouch_for_parent};
use std::fs::{DirBuilder, metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const PURPOSE: Purpose = Purpose {
    keeps: "images",
    variable: "XDG_DATA_HOME",
};
/// Around the system's own.
const SYSTEM: &str = "/var/lib";
/// In kvmlet's directory.
const NAME: &str = "images";

/// Is it another user's, or not there?
fn is_of_others(path: &str) -> bool {
    match metadata(path) {
        Ok(found) => found.uid() != rustix::process::geteuid().as_raw(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// That of this process's user, made if it is not there.
pub fn of_user() -> Result<Directory, Error> {
    if rustix::process::geteuid().is_root() {
        match vouch_for_own(Path::new(SYSTEM)) {
            Ok(path) => return within(&path),
            // A user who is root of a namespace, and of nothing else.
            Err(problem) if is_of_others(SYSTEM) => log::debug!("{}", problem.of(&PURPOSE)),
            Err(problem) => return Err(problem.of(&PURPOSE).into()),
        }
    }
    let named = environment::variable("XDG_DATA_HOME").map(PathBuf::from);
    // Others than absolute paths are to be ignored (same specification).
    let around = match named.filter(|path| path.is_absolute()) {
        Some(path) => path,
        None => environment::home()
            .ok_or(Error::Homeless)?
            .join(".local/share"),
    };
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&around);
    made.map_err(|source| {
        let path = around.clone();
        Problem::Make { path, source }.of(&PURPOSE)
    })?;
    let path = vouch_for_parent(&around.join("kvmlet")).map_err(|it| it.of(&PURPOSE))?;
    within(&path)
}

/// The store in kvmlet's directory, which may be the book's, too.
fn within(kvmlet: &Path) -> Result<Directory, Error> {
    trusted::open(kvmlet, &PURPOSE)?;
    Ok(trusted::open(&kvmlet.join(NAME), &PURPOSE)?)
}

/// The directory at a path, made if it is not there; the one around it is.
pub fn at(path: &Path) -> Result<Directory, Error> {
    let path = std::path::absolute(path).map_err(|source| {
        let path = path.into();
        Problem::Unusable { path, source }.of(&PURPOSE)
    })?;
    let path = vouch_for_parent(&path).map_err(|problem| problem.of(&PURPOSE))?;
    Ok(trusted::open(&path, &PURPOSE)?)
}
