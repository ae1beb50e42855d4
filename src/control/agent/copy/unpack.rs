//! From records of a guest to files of this host.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kvmlet_contract::archive::{MAX_DEPTH, Modified, Owner, Record};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chownat, fchmod, fchown, fsetxattr, ftruncate, futimens, mkdirat, mknodat, openat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};

use super::destination::{self, Destination, Outermost};
use super::failure::{CopyError, Owners, host};

/// What nobody's rights come with.
const PLAIN: u32 = 0o777;

/// Takes records as they come, in any pieces, and makes files of them.
pub(super) struct Unpacker {
    /// Where the item goes.
    directory: OwnedFd,
    /// How it is called there, whatever the guest calls it. There is none if a directory is filled.
    name: Option<Vec<u8>>,
    outermost: Outermost,
    /// It has come.
    begun: bool,
    owners: Owners,
    /// Items that have begun, each in the one before it.
    open: Vec<Item>,
    /// Where that is, for those who are told of a failure.
    path: PathBuf,
    /// No more than one record.
    bytes: Vec<u8>,
    complete: bool,
    failure: Option<CopyError>,
}

struct Item {
    file: OwnedFd,
    is_directory: bool,
    /// It is the directory that is filled: there was no name, and it belongs to whoever has made it.
    filled: bool,
    /// Of a file.
    size: u64,
}

impl Unpacker {
    /// Has what is at a path of the guest go to one of this host.
    pub(super) fn to(path: &Path, asked: &[u8], owners: Owners) -> Result<Self, CopyError> {
        let destination = Destination::find(path)?;
        let fills = destination.outermost == Outermost::Filling;
        let name = match destination.new_name {
            None if !fills => Some(destination::own_name(asked)?),
            name => name,
        };
        Ok(Self {
            directory: destination.directory,
            name,
            outermost: destination.outermost,
            begun: false,
            owners,
            open: Vec::new(),
            path: destination.path,
            bytes: Vec::new(),
            complete: false,
            failure: None,
        })
    }

    /// Why it takes no more.
    pub(super) fn failure(&mut self) -> Result<(), CopyError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// All has come.
    pub(super) fn finish(self) -> Result<(), CopyError> {
        match self.complete && self.bytes.is_empty() {
            true => Ok(()),
            false => Err(CopyError::Nonsense {
                what: "less than it has announced",
                path: self.path,
            }),
        }
    }

    fn take_all(&mut self) -> Result<(), CopyError> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut done = 0;
        while let Some((record, length)) = Record::decode(&bytes[done..])? {
            self.take(record)?;
            done += length;
        }
        self.bytes = bytes[done..].to_vec();
        Ok(())
    }

    fn nonsense(&self, what: &'static str) -> CopyError {
        CopyError::Nonsense {
            what,
            path: self.path.clone(),
        }
    }

    fn around(&self) -> BorrowedFd<'_> {
        let innermost = self.open.last();
        innermost.map_or(self.directory.as_fd(), |item| item.file.as_fd())
    }

    fn innermost(&self) -> Result<&Item, CopyError> {
        let innermost = self.open.last();
        innermost.ok_or_else(|| self.nonsense("what belongs to no file"))
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), CopyError> {
        if self.complete {
            return Err(self.nonsense("something behind the end"));
        }
        if self.open.is_empty() {
            self.begin(&record)?;
        }
        match record {
            Record::Directory { .. }
                if self.open.is_empty() && self.outermost == Outermost::Filling =>
            {
                self.fill()
            }
            Record::Directory { name } => {
                let name = self.enter(name)?;
                self.directory(&name)
            }
            Record::File { name, size } => {
                let name = self.enter(name)?;
                self.file(&name, size)
            }
            Record::Symlink {
                owner,
                modified,
                name,
                target,
            } => {
                let name = self.enter(name)?;
                let made = self.symlink(&name, OsStr::from_bytes(target), owner, modified);
                made.map_err(host("make the link", &self.path))?;
                self.path.pop();
                Ok(())
            }
            Record::Node {
                owner,
                modified,
                name,
                ..
            } => {
                let name = self.enter(name)?;
                if FileType::from_raw_mode(owner.mode) != FileType::Fifo {
                    return Err(self.nonsense("a device, which is not made on a host"));
                }
                let made = self.fifo(&name, owner, modified);
                made.map_err(host("make the FIFO", &self.path))?;
                self.path.pop();
                Ok(())
            }
            Record::Data { offset, bytes } => self.write_at(offset, bytes),
            // It is said again when it is needed here.
            Record::Ahead { .. } => self.innermost().map(drop),
            Record::Enter { .. } => Err(self.nonsense("what is for guests only")),
            Record::Owner(_) | Record::Attribute { .. } if self.innermost()?.filled => Ok(()),
            Record::Owner(owner) => self.own(owner),
            Record::Attribute { name, value } => self.attribute(name, value),
            Record::Leave(_) if self.innermost()?.filled => {
                self.open.pop();
                Ok(())
            }
            Record::Leave(modified) => {
                let set = futimens(&self.innermost()?.file, &times(modified));
                set.map_err(host("set the time of", &self.path))?;
                self.open.pop();
                self.path.pop();
                Ok(())
            }
            Record::End if self.open.is_empty() => {
                self.complete = true;
                Ok(())
            }
            Record::End => Err(self.nonsense("an end within a directory")),
        }
    }

    /// Only what was asked for comes, and once.
    fn begin(&mut self, record: &Record<'_>) -> Result<(), CopyError> {
        let is_directory = matches!(record, Record::Directory { .. });
        let other = matches!(
            record,
            Record::File { .. } | Record::Symlink { .. } | Record::Node { .. }
        );
        if other && self.outermost != Outermost::Anything {
            let name = self.name.as_deref().unwrap_or_default();
            let path = self.path.join(OsStr::from_bytes(name));
            return Err(host("copy what is no directory to", &path)(Errno::NOTDIR));
        }
        if (is_directory || other) && std::mem::replace(&mut self.begun, true) {
            return Err(self.nonsense("more than was asked for"));
        }
        Ok(())
    }

    /// What is in the directory that comes goes into that of the path.
    fn fill(&mut self) -> Result<(), CopyError> {
        let file = self.directory.try_clone();
        let file = file.map_err(|source| CopyError::Host {
            what: "copy to",
            path: self.path.clone(),
            source,
        })?;
        self.open.push(Item {
            file,
            is_directory: true,
            filled: true,
            size: 0,
        });
        Ok(())
    }

    /// The name of an item that comes, and the path with it.
    fn enter(&mut self, name: &[u8]) -> Result<Vec<u8>, CopyError> {
        if self.open.last().is_some_and(|item| !item.is_directory) {
            return Err(self.nonsense("something in what is no directory"));
        }
        if self.open.len() > MAX_DEPTH {
            return Err(self.nonsense("too many directories in each other"));
        }
        let outermost = self.name.as_ref().filter(|_| self.open.is_empty());
        let name = outermost.cloned().unwrap_or_else(|| name.to_vec());
        self.path.push(OsStr::from_bytes(&name));
        Ok(name)
    }

    fn directory(&mut self, name: &[u8]) -> Result<(), CopyError> {
        let around = self.around();
        match mkdirat(around, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(host("make the directory", &self.path)(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(around, name, flags, Mode::empty());
        let file = opened.map_err(host("go into", &self.path))?;
        self.open.push(Item {
            file,
            is_directory: true,
            filled: false,
            size: 0,
        });
        Ok(())
    }

    fn file(&mut self, name: &[u8], size: u64) -> Result<(), CopyError> {
        let make = || {
            self.make_way(name)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(self.around(), name, flags, Mode::RUSR | Mode::WUSR)?;
            ftruncate(&file, size)?;
            Ok(file)
        };
        let file = make().map_err(host("make", &self.path))?;
        self.open.push(Item {
            file,
            is_directory: false,
            filled: false,
            size,
        });
        Ok(())
    }

    /// Removes what is there, but no directory.
    fn make_way(&self, name: &[u8]) -> Result<(), Errno> {
        match unlinkat(self.around(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn symlink(
        &self,
        name: &[u8],
        target: &OsStr,
        owner: Owner,
        modified: Modified,
    ) -> Result<(), Errno> {
        self.make_way(name)?;
        symlinkat(target, self.around(), name)?;
        self.finish_alone(name, owner, modified)
    }

    fn fifo(&self, name: &[u8], owner: Owner, modified: Modified) -> Result<(), Errno> {
        self.make_way(name)?;
        let mode = Mode::from_raw_mode(owner.mode & PLAIN);
        mknodat(self.around(), name, FileType::Fifo, mode, 0)?;
        self.finish_alone(name, owner, modified)
    }

    /// What is set of an item that is not opened.
    fn finish_alone(&self, name: &[u8], owner: Owner, modified: Modified) -> Result<(), Errno> {
        if self.owners == Owners::Theirs {
            let (uid, gid) = ids(owner);
            chownat(self.around(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        utimensat(
            self.around(),
            name,
            &times(modified),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    fn own(&self, owner: Owner) -> Result<(), CopyError> {
        let file = &self.innermost()?.file;
        let set = || match self.owners {
            Owners::Mine => fchmod(file, Mode::from_raw_mode(owner.mode & PLAIN)),
            Owners::Theirs => {
                let (uid, gid) = ids(owner);
                fchown(file, uid, gid)?;
                fchmod(file, Mode::from_raw_mode(owner.mode))
            }
        };
        set().map_err(host("set the owner of", &self.path))
    }

    fn attribute(&self, name: &[u8], value: &[u8]) -> Result<(), CopyError> {
        let file = &self.innermost()?.file;
        let set = || fsetxattr(file, name, value, XattrFlags::empty());
        match self.owners {
            Owners::Mine if !name.starts_with(b"user.") => Ok(()),
            // As other programs leave them out where a file system has none.
            Owners::Mine if set() == Err(Errno::OPNOTSUPP) => Ok(()),
            _ => set().map_err(host("set the attributes of", &self.path)),
        }
    }

    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), CopyError> {
        let item = self.innermost()?;
        // A record's end is no farther than a file can be.
        if item.is_directory || offset + bytes.len() as u64 > item.size {
            return Err(self.nonsense("more of a file than it has"));
        }
        while !bytes.is_empty() {
            match pwrite(&item.file, bytes, offset) {
                Ok(count) => {
                    offset += count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(host("write to", &self.path)(error)),
            }
        }
        Ok(())
    }
}

impl Write for Unpacker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.take_all().map_err(|failure| {
            let error = io::Error::other(failure.to_string());
            self.failure = Some(failure);
            error
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ids(owner: Owner) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(owner.uid)),
        Some(Gid::from_raw(owner.gid)),
    )
}

fn times(modified: Modified) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanoseconds.into(),
        },
    }
}
