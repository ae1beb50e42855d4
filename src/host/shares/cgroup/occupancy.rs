//! Processes that are in the way. In version 2 no cgroup but the root has processes and gives controllers to its
//! children (cgroup-v2.rst, "No Internal Process Constraint"). In one that was handed to us, such as a service with
//! `Delegate=yes`, whoever is there is moved into a child of it, and back when the last VM has gone.

use super::hierarchy::listed;
use super::{Controller, Error, plan, write};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The child in which processes are meanwhile.
const ASIDE: &str = "kvmlet-supervisor";

/// Processes may start others while they are moved one by one.
const ROUNDS: usize = 100;

/// Has the children of a cgroup have controllers. With `clear`, whoever is in it is moved aside for that.
pub(super) fn enable(
    directory: &Path,
    controllers: &[Controller],
    clear: bool,
) -> Result<(), Error> {
    let file = "cgroup.subtree_control";
    let given = |controller: &Controller| listed(directory, file, *controller);
    if controllers.iter().all(given) {
        return Ok(());
    }
    let (path, text) = (directory.join(file), plan::plus(controllers));
    let mut rounds = 0;
    loop {
        let source = match write(&path, &text) {
            Ok(()) => return Ok(()),
            Err(source) => source,
        };
        let is_busy = source.kind() == io::ErrorKind::ResourceBusy;
        if !is_busy {
            return Err(Error::Write { path, text, source });
        }
        if !clear || rounds == ROUNDS {
            let directory = directory.into();
            return Err(Error::Occupied { directory });
        }
        move_aside(directory)?;
        rounds += 1;
    }
}

fn move_aside(directory: &Path) -> Result<(), Error> {
    let aside = directory.join(ASIDE);
    match super::make(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::Make {
                path: aside,
                source: error,
            });
        }
        _ => {}
    }
    transfer(directory, &aside).map_err(|source| Error::Join {
        path: aside,
        source,
    })
}

/// Undoes [`enable`] where processes had to be moved, unless others have made cgroups of their own there since then.
/// What cannot be undone stays: nobody is hurt by it.
pub(super) fn restore(directory: &Path) {
    let aside = directory.join(ASIDE);
    let is_other = |path: PathBuf| path.is_dir() && path != aside;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    if !aside.is_dir() || entries.map(|entry| entry.path()).any(is_other) {
        return;
    }
    let path = directory.join("cgroup.subtree_control");
    let given = fs::read_to_string(&path).unwrap_or_default();
    let given: Vec<String> = given
        .split_whitespace()
        .map(|name| format!("-{name}"))
        .collect();
    let mut restored = write(&path, &given.join(" "));
    for _ in 0..ROUNDS {
        restored = restored.and_then(|()| transfer(&aside, directory));
        if restored.is_err() || fs::remove_dir(&aside).is_ok() {
            break;
        }
    }
    if let Err(error) = restored {
        log::debug!("processes stay in {}: {error}", aside.display());
    }
}

/// Moves all processes from one cgroup to another.
fn transfer(from: &Path, to: &Path) -> io::Result<()> {
    let processes = fs::read_to_string(from.join("cgroup.procs"))?;
    for process in processes.lines() {
        match write(&to.join("cgroup.procs"), process) {
            // It has ended, or is about to.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => result?,
        }
    }
    Ok(())
}
