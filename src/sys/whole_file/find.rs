//! From a path to what can be written. Each name on the way is looked at once, in a directory that is held open: nobody
//! can show one thing and then put another in its place.

use super::{Error, Target};
use crate::directory::Directory;
use crate::temporary::Temporary;
use crate::users;
use rustix::fs::{
    Access, AtFlags, FileType, Mode, OFlags, Stat, accessat, fstat, fstatfs, openat, readlinkat,
};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Links that are followed for one path, as in path_resolution(7).
const LINKS: usize = 40;
/// Anybody can write here, and nobody can remove what is another's.
const SHARED: u32 = 0o1002;
/// PROC_SUPER_MAGIC (linux/magic.h).
const PROC: u64 = 0x9fa0;

/// What a user has named, if it can be written.
pub(super) fn find(path: &Path) -> Result<Target, Error> {
    let mut walk = Walk {
        path,
        at: Directory::start_of(path).map_err(Error::io(path))?,
        names: names(path),
        links: 0,
    };
    loop {
        let Some(name) = walk.names.pop() else {
            return Err(Error::kind(path, FileType::Directory));
        };
        if let Some(target) = walk.step(&name)? {
            return Ok(target);
        }
    }
}

/// On the way to a file.
struct Walk<'a> {
    /// What the user named.
    path: &'a Path,
    at: Directory,
    /// What is to come, the next one last.
    names: Vec<OsString>,
    links: usize,
}

impl Walk<'_> {
    /// Goes on by one name, which at the end of the way is what is to be written.
    fn step(&mut self, name: &OsStr) -> Result<Option<Target>, Error> {
        let failed = Error::io(self.path);
        let is_last = self.names.is_empty();
        let entry = match self.at.stat_entry(Path::new(name)) {
            Err(error) if is_last && error.kind() == io::ErrorKind::NotFound => {
                return named(&self.at, name, None).map(Some).map_err(failed);
            }
            other => other.map_err(&failed)?,
        };
        let kind = FileType::from_raw_mode(entry.st_mode);
        if is_last || kind == FileType::Symlink {
            refuse_bait(&self.at, name, &entry)?;
        }
        match kind {
            FileType::Symlink if is_proc(&self.at) => self.descriptor(name),
            FileType::Symlink => self.follow(name).map(|()| None).map_err(failed),
            FileType::Directory => {
                self.at = self.at.enter(name).map_err(failed)?;
                Ok(None)
            }
            _ if is_last => what_is(self.path, &self.at, name, &entry, OFlags::NOFOLLOW).map(Some),
            _ => Err(failed(Errno::NOTDIR.into())),
        }
    }

    fn follow(&mut self, name: &OsStr) -> io::Result<()> {
        self.links += 1;
        if self.links > LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&self.at, name, Vec::new())?.into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        if target.is_absolute() {
            self.at = Directory::start_of(&target)?;
        }
        self.names.extend(names(&target));
        Ok(())
    }

    /// A link of /proc (`/dev/stdout`, `/dev/fd/63`) leads to what is open, which may have no path.
    fn descriptor(&mut self, name: &OsStr) -> Result<Option<Target>, Error> {
        let failed = Error::io(self.path);
        let open = openat(
            &self.at,
            name,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let there = open.and_then(fstat).map_err(|error| failed(error.into()))?;
        let has_path = match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => standard(&there).is_none(),
            _ => false,
        };
        match has_path {
            true => self.follow(name).map(|()| None).map_err(failed),
            false => what_is(self.path, &self.at, name, &there, OFlags::empty()).map(Some),
        }
    }
}

/// The names in a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.into()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// What is there by a name, which `follow` opens.
fn what_is(
    path: &Path,
    directory: &Directory,
    name: &OsStr,
    entry: &Stat,
    follow: OFlags,
) -> Result<Target, Error> {
    let failed = Error::io(path);
    if let Some(stream) = standard(entry) {
        return Target::copy_of(stream).map_err(failed);
    }
    match FileType::from_raw_mode(entry.st_mode) {
        FileType::RegularFile => {
            let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
            let access = accessat(directory, name, Access::WRITE_OK, flags);
            access.map_err(|error| failed(error.into()))?;
            named(directory, name, Some(entry)).map_err(failed)
        }
        FileType::Fifo | FileType::CharacterDevice => {
            // A FIFO without a reader, or a line without a carrier, would keep us waiting.
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            match openat(directory, name, flags | follow, Mode::empty()) {
                Ok(file) => Ok(Target::Stream(file.into())),
                Err(Errno::NXIO) => Err(Error::NoReader { path: path.into() }),
                Err(error) => Err(failed(error.into())),
            }
        }
        other => Err(Error::kind(path, other)),
    }
}

/// A name for a file that replaces what is there.
fn named(directory: &Directory, name: &OsStr, there: Option<&Stat>) -> io::Result<Target> {
    // This is the trial: it has no name, and goes at once.
    Temporary::new(directory, Mode::RUSR | Mode::WUSR)?;
    Ok(Target::Name {
        directory: directory.try_clone()?,
        name: name.into(),
        rights: there.map(Into::into),
    })
}

fn is_proc(directory: &Directory) -> bool {
    fstatfs(directory).is_ok_and(|found| found.f_type as u64 == PROC)
}

/// Standard output or error, if that is what this is.
fn standard(entry: &Stat) -> Option<BorrowedFd<'static>> {
    [stdout(), stderr()]
        .into_iter()
        .find(|stream| super::is_same(*stream, entry))
}

/// Refuses what somebody else has left to be written to: links, wherever they are (root writes into users'
/// directories, too), and anything in a directory like /tmp.
fn refuse_bait(directory: &Directory, name: &OsStr, entry: &Stat) -> Result<(), Error> {
    let path = directory.path().join(name);
    let around = directory.stat().map_err(Error::io(&path))?;
    let trusted = match FileType::from_raw_mode(entry.st_mode) {
        FileType::Symlink => users::is_this_or_root(entry.st_uid),
        _ => {
            let this = rustix::process::geteuid().as_raw();
            around.st_mode & SHARED != SHARED || [this, around.st_uid].contains(&entry.st_uid)
        }
    };
    match trusted {
        true => Ok(()),
        false => Err(Error::Foreign {
            owner: entry.st_uid,
            path,
        }),
    }
}
