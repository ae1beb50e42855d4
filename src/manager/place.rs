//! Where the book is: in `/var/lib/kvmlet` for whoever `/var/lib` belongs to, which is root, also the root of a container.
//! For others in `kvmlet` in `$XDG_STATE_HOME`, or else in `~/.local/state` (XDG Base Directory Specification). As the
//! runtime directory it is believed only if nobody else can have written it.

use crate::Error;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::environment;
use kvmlet_sys::trusted::{self, Problem, Purpose, vouch_for_own, vouch_for_parent};
use std::fs::{DirBuilder, metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const PURPOSE: Purpose = Purpose {
    keeps: "the book of instances",
    variable: "XDG_STATE_HOME",
};

/// Around the system's own.
const SYSTEM: &str = "/var/lib";

/// Is it another user's, or not there?
fn is_of_others(path: &str) -> bool {
    match metadata(path) {
        Ok(found) => found.uid() != rustix::process::geteuid().as_raw(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// That of this process's user, made if it is not there.
pub(crate) fn of_user() -> Result<Directory, Error> {
    if rustix::process::geteuid().is_root() {
        match vouch_for_own(Path::new(SYSTEM)) {
            Ok(path) => return Ok(trusted::open(&path, &PURPOSE)?),
            // A user who is root of a namespace, and of nothing else. For others, to whom it belongs, a book elsewhere would be
            // an empty one, and what runs be forgotten.
            Err(problem) if is_of_others(SYSTEM) => log::debug!("{}", problem.of(&PURPOSE)),
            Err(problem) => return Err(problem.of(&PURPOSE).into()),
        }
    }
    let named = environment::variable("XDG_STATE_HOME").map(PathBuf::from);
    // Others than absolute paths are to be ignored (same specification).
    let around = match named.filter(|path| path.is_absolute()) {
        Some(path) => path,
        None => environment::home()
            .ok_or(Error::Homeless)?
            .join(".local/state"),
    };
    make_way(&around).map_err(|source| {
        let path = around.clone();
        Problem::Make { path, source }.of(&PURPOSE)
    })?;
    at(&around.join("kvmlet"))
}

/// The directory at a path, made if it is not there; the one around it is.
pub(crate) fn at(path: &Path) -> Result<Directory, Error> {
    let path = vouch_for_parent(path).map_err(|problem| problem.of(&PURPOSE))?;
    Ok(trusted::open(&path, &PURPOSE)?)
}

/// As the specification has it: for this user alone.
fn make_way(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
