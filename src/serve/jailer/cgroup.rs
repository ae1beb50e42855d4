//! The cgroup that the program runs in: made and filled in first, and entered last, so that nothing is in it that came to
//! nothing.

use super::Refused;
use super::flags::{Cgroup, Flags, Version};
use super::made::{DIRECTORY, Made};
use super::mounts::Mounts;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

const CONTROLLERS: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";
const MEMBERS: &str = "cgroup.procs";
/// What a cgroup of version 1 has to have before a process may enter it, and does not have from the start.
const NEEDED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
/// No file of a cgroup that is read here is longer.
const LONGEST: u64 = 64 << 10;

/// What has to be written to, by a process that enters them.
#[derive(Debug, Default)]
pub struct Seats(Vec<(PathBuf, File)>);

impl Seats {
    /// Makes the cgroups that were asked for.
    pub fn prepare(flags: &Flags, made: &mut Made) -> Result<Self, Refused> {
        let asked = &flags.cgroup;
        if asked.values.is_empty() && asked.version == Version::One {
            return Ok(Self::default());
        }
        let mounts =
            Mounts::read().map_err(|error| Refused::by_host("/proc/self/mounts", error))?;
        Self::prepare_in(&mounts, asked, &flags.id, made)
    }

    fn prepare_in(
        mounts: &Mounts,
        asked: &Cgroup,
        id: &str,
        made: &mut Made,
    ) -> Result<Self, Refused> {
        let root = |controller| {
            let root = match asked.version {
                Version::One => mounts.of_controller(controller),
                Version::Two => mounts.unified(),
            };
            root.ok_or_else(|| match asked.version {
                Version::One => Refused(format!(
                    "no cgroups of version 1 have the controller {controller} here"
                )),
                Version::Two => Refused("there are no cgroups of version 2 here".into()),
            })
        };
        if asked.values.is_empty() {
            return Self::of_existing(&root("")?.join(&asked.parent));
        }
        let mut seats: Vec<(PathBuf, File)> = Vec::new();
        for (file, value) in &asked.values {
            let controller = file.split('.').next().unwrap_or_default();
            let root = root(controller)?;
            let steps = asked
                .parent
                .iter()
                .filter_map(|step| step.to_str())
                .chain([id]);
            let (path, directory) = match asked.version {
                Version::One => below_one(root, steps, made)?,
                Version::Two => below_two(root, steps, controller, made)?,
            };
            let at = path.join(file);
            write(&directory, file, value).map_err(|error| {
                Refused::by_host(
                    format!("--cgroup {file}={value}: `{}`", at.display()),
                    error,
                )
            })?;
            if !seats.iter().any(|(known, _)| *known == path) {
                let members = open(&directory, MEMBERS)
                    .map_err(|error| Refused::by_host(path.display(), error))?;
                seats.push((path, members));
            }
        }
        Ok(Self(seats))
    }

    /// One that somebody else has made; where there is none, there is none to be in.
    fn of_existing(path: &Path) -> Result<Self, Refused> {
        match found(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            opened => {
                let members = opened.and_then(|directory| open(&directory, MEMBERS));
                let members = members.map_err(|error| refused(path, error))?;
                Ok(Self(vec![(path.to_owned(), members)]))
            }
        }
    }

    /// Has this process enter them.
    pub fn take(self) -> Result<(), Refused> {
        for (path, mut members) in self.0 {
            members.write_all(b"0").map_err(|error| {
                let help = "a cgroup below one that gives controllers away (--parent-cgroup) needs a value of its own (--cgroup)";
                Refused(format!("cannot enter the cgroup `{}`: {error} ({help})", path.display()))
            })?;
        }
        Ok(())
    }
}

fn refused(path: &Path, error: io::Error) -> Refused {
    Refused::by_host(format!("the cgroup `{}`", path.display()), error)
}

fn found(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// A cgroup below a root, where each has what it needs before somebody may enter it.
fn below_one<'a>(
    root: &Path,
    steps: impl Iterator<Item = &'a str>,
    made: &mut Made,
) -> Result<(PathBuf, OwnedFd), Refused> {
    let mut path = root.to_owned();
    let mut directory = found(root).map_err(|error| refused(root, error))?;
    for step in steps {
        path.push(step);
        let next = made
            .directory(&directory, step, 0o755)
            .map_err(|error| refused(&path, error))?;
        for file in NEEDED {
            inherit(&directory, &next, file).map_err(|error| refused(&path, error))?;
        }
        directory = next;
    }
    Ok((path, directory))
}

/// Fills in what is empty, if there is such a file at all.
fn inherit(parent: &OwnedFd, child: &OwnedFd, file: &str) -> io::Result<()> {
    match read(child, file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(text) if text.trim().is_empty() => write(child, file, read(parent, file)?.trim()),
        read => read.map(drop),
    }
}

/// A cgroup below the root, where all above it give this controller away.
fn below_two<'a>(
    root: &Path,
    steps: impl Iterator<Item = &'a str>,
    controller: &str,
    made: &mut Made,
) -> Result<(PathBuf, OwnedFd), Refused> {
    let mut path = root.to_owned();
    let mut directory = found(root).map_err(|error| refused(root, error))?;
    let known = read(&directory, CONTROLLERS).map_err(|error| refused(root, error))?;
    if !known.split_whitespace().any(|word| word == controller) {
        return Err(Refused(format!(
            "the cgroups of version 2 have no controller {controller} here: {}",
            known.trim()
        )));
    }
    for step in steps {
        write(&directory, ENABLED, &format!("+{controller}")).map_err(|error| {
            Refused::by_host(
                format!(
                    "the cgroup `{}` does not give {controller} away",
                    path.display()
                ),
                error,
            )
        })?;
        path.push(step);
        directory = made
            .directory(&directory, step, 0o755)
            .map_err(|error| refused(&path, error))?;
    }
    Ok((path, directory))
}

fn open(directory: impl AsFd, file: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, file, flags, Mode::empty())?.into())
}

fn write(directory: impl AsFd, file: &str, value: &str) -> io::Result<()> {
    open(directory, file)?.write_all(value.as_bytes())
}

fn read(directory: impl AsFd, file: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(directory, file, flags, Mode::empty())?);
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
