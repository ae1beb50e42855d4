//! From files of this host to records.

use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kvmlet_contract::archive::{
    MAX_ATTRIBUTE, MAX_DATA, MAX_DEPTH, Modified, Owner, PERMISSIONS, Record,
};
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, openat,
    readlinkat, seek, statat,
};
use rustix::io::{Errno, pread};
use rustix::net::{SendFlags, send};

use super::failure::{CopyError, Owners, host};

/// How many bytes the names of a file's attributes have at most (XATTR_LIST_MAX).
const ATTRIBUTE_NAMES: usize = 64 << 10;

/// What is at a path, to be packed.
pub(super) struct Packer {
    directory: OwnedFd,
    name: Vec<u8>,
    path: PathBuf,
    owners: Owners,
}

impl Packer {
    pub(super) fn of(path: &Path, owners: Owners) -> Result<Self, CopyError> {
        // What has no name of its own has one all the same.
        let path = match path.file_name() {
            Some(_) => path.to_path_buf(),
            None => path.canonicalize().map_err(|source| CopyError::Host {
                what: "find",
                path: path.to_path_buf(),
                source,
            })?,
        };
        let name = path
            .file_name()
            .ok_or(Errno::INVAL)
            .map_err(host("copy all of", &path))?;
        let name = name.as_bytes().to_vec();
        let around = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, around, flags, Mode::empty());
        let directory = directory.map_err(host("open", around))?;
        Ok(Self {
            directory,
            name,
            path,
            owners,
        })
    }

    /// Writes the records of it. Whoever stops reading has their reasons, and tells them.
    pub(super) fn pack(self, output: UnixStream) -> Result<(), CopyError> {
        let mut packing = Packing {
            output: BufWriter::with_capacity(2 * MAX_PAYLOAD, Wire(output)),
            deaf: false,
            path: self.path,
            owners: self.owners,
        };
        packing.item(self.directory.as_fd(), &self.name, 0)?;
        packing.tell(&Record::End);
        packing.deaf |= packing.output.flush().is_err();
        Ok(())
    }
}

/// What is written to is told of its reader's end by an error, and by no signal.
struct Wire(UnixStream);

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Packing {
    output: BufWriter<Wire>,
    /// Nobody reads any more.
    deaf: bool,
    path: PathBuf,
    owners: Owners,
}

impl Packing {
    fn tell(&mut self, record: &Record<'_>) {
        let mut wire = [0; HEADER + MAX_PAYLOAD];
        // What the kernel says of a file fits; attributes are looked at before.
        let length = record.encode(&mut wire).unwrap_or(0);
        self.deaf |= self.output.write_all(&wire[..length]).is_err();
    }

    fn item(&mut self, around: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), CopyError> {
        let status =
            statat(around, name, AtFlags::SYMLINK_NOFOLLOW).map_err(host("read", &self.path))?;
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags: OFlags| openat(around, name, flags, Mode::empty());
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory if depth == MAX_DEPTH => {
                return Err(host("go into", &self.path)(Errno::LOOP));
            }
            FileType::Directory => {
                let file = open(flags | OFlags::DIRECTORY).map_err(host("read", &self.path))?;
                self.tell(&Record::Directory { name });
                self.entries(&file, depth)?;
                self.leave(&file, &status)?;
            }
            FileType::RegularFile => {
                let file = open(flags).map_err(host("read", &self.path))?;
                let size = u64::try_from(status.st_size).unwrap_or(0);
                self.tell(&Record::File { name, size });
                self.content(&file, size)?;
                self.leave(&file, &status)?;
            }
            FileType::Symlink => {
                let target =
                    readlinkat(around, name, Vec::new()).map_err(host("read", &self.path))?;
                self.tell(&Record::Symlink {
                    owner: self.owner(&status),
                    modified: modified(&status),
                    name,
                    target: target.as_bytes(),
                });
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let device = status.st_rdev;
                let device = u32::try_from(device).map_err(|_| Errno::OVERFLOW);
                self.tell(&Record::Node {
                    owner: Owner {
                        mode: status.st_mode,
                        ..self.owner(&status)
                    },
                    modified: modified(&status),
                    device: device.map_err(host("read", &self.path))?,
                    name,
                });
            }
            // Nobody could connect to a copy of a socket.
            _ => {}
        }
        Ok(())
    }

    fn entries(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), CopyError> {
        let listed = Dir::read_from(directory).map_err(host("read", &self.path))?;
        for entry in listed {
            let entry = entry.map_err(host("read", &self.path))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if self.deaf {
                break;
            }
            self.path.push(std::ffi::OsStr::from_bytes(name));
            self.item(directory.as_fd(), name, depth + 1)?;
            self.path.pop();
        }
        Ok(())
    }

    fn content(&mut self, file: &OwnedFd, size: u64) -> Result<(), CopyError> {
        let mut piece = [0; MAX_DATA];
        let mut at = 0;
        while at < size && !self.deaf {
            let stretch = next_data(file, at, size).map_err(host("read", &self.path))?;
            let Some((start, end)) = stretch else {
                return Ok(());
            };
            at = start;
            while at < end.min(size) && !self.deaf {
                let most = (end.min(size) - at).min(MAX_DATA as u64) as usize;
                let read = pread(file, &mut piece[..most], at);
                let count = read.map_err(host("read", &self.path))?;
                if count == 0 {
                    // It has become shorter meanwhile.
                    return Ok(());
                }
                let bytes = &piece[..count];
                self.tell(&Record::Data { offset: at, bytes });
                at += count as u64;
            }
        }
        Ok(())
    }

    /// What is said of an item when all that is in it was.
    fn leave(&mut self, file: &OwnedFd, status: &Stat) -> Result<(), CopyError> {
        self.tell(&Record::Owner(self.owner(status)));
        let mut names = vec![0; ATTRIBUTE_NAMES];
        let length = match flistxattr(file, &mut names[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other.map_err(host("read the attributes of", &self.path))?,
        };
        for name in names[..length].split(|byte| *byte == 0) {
            let wanted = self.owners == Owners::Theirs || name.starts_with(b"user.");
            if name.is_empty() || !wanted {
                continue;
            }
            let mut value = [0; MAX_ATTRIBUTE];
            match fgetxattr(file, name, &mut value[..]) {
                Ok(length) => {
                    let value = &value[..length];
                    self.tell(&Record::Attribute { name, value });
                }
                // It is gone, or the kernel's own and not for us.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(host("read the attributes of", &self.path)(error)),
            }
        }
        self.tell(&Record::Leave(modified(status)));
        Ok(())
    }

    fn owner(&self, status: &Stat) -> Owner {
        let mode = status.st_mode & PERMISSIONS;
        match self.owners {
            Owners::Mine => Owner {
                uid: 0,
                gid: 0,
                mode: mode & 0o777,
            },
            Owners::Theirs => Owner {
                uid: status.st_uid,
                gid: status.st_gid,
                mode,
            },
        }
    }
}

/// The next stretch of a file that is no hole. A file system that does not know has nothing but data.
fn next_data(file: &OwnedFd, from: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL) => Ok(Some((from, size))),
        Err(error) => Err(error),
    }
}

fn modified(status: &Stat) -> Modified {
    Modified {
        seconds: status.st_mtime,
        nanoseconds: u32::try_from(status.st_mtime_nsec).unwrap_or(0),
    }
}
