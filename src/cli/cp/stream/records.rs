//! Records as they are read from a guest, and written to one, and what an archive's headers say of them.

use super::NotUnpacked;
use kvmlet_control::agent::Owners;
use kvmlet_control::agent::archive::{MAX_ATTRIBUTE, Modified, Owner, PERMISSIONS, Record};
use kvmlet_control::agent::channel::{HEADER, MAX_PAYLOAD};
use kvmlet_control::agent::records::{Content, Records};
use rustix::fs::FileType;
use rustix::net::{SendFlags, send};
use std::ffi::OsStr;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use tar::{EntryType, Header};

/// Names and values of extended attributes.
pub(super) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Of a directory that keeps its own.
pub(super) const NO_TIME: Modified = Modified {
    seconds: 0,
    nanoseconds: 0,
};

/// A guest's record that makes no sense where it comes.
pub(super) fn nonsense() -> io::Error {
    io::Error::other("the guest's agent sent what makes no archive")
}

/// Bytes as a path.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// What is said of the item that has just begun.
pub(super) fn ahead(records: &mut Records<impl Read>) -> io::Result<About> {
    records
        .take_if(|record| match record {
            Record::Ahead { owner, modified } => Some(About {
                owner: *owner,
                modified: *modified,
            }),
            _ => None,
        })?
        .ok_or_else(nonsense)
}

/// The content of a file.
pub(super) struct FileContent<'a, R> {
    records: &'a mut Records<R>,
    content: Content,
}

impl<'a, R: Read> FileContent<'a, R> {
    pub fn new(records: &'a mut Records<R>, size: u64) -> Self {
        let content = Content::new(size);
        Self { records, content }
    }

    /// Passes over what is said of it at its end.
    pub fn finish(self) -> io::Result<()> {
        loop {
            match self.records.take()?.get() {
                Record::Leave(_) => return Ok(()),
                Record::Owner(_) | Record::Attribute { .. } => {}
                _ => return Err(nonsense()),
            }
        }
    }
}

impl<R: Read> Read for FileContent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.content.fill(buffer, || self.records.piece())
    }
}

/// Writes records to a guest.
pub(super) struct Writer(BufWriter<Wire>);

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

impl Writer {
    pub fn new(stream: UnixStream) -> Self {
        Self(BufWriter::with_capacity(2 * MAX_PAYLOAD, Wire(stream)))
    }

    pub fn tell(&mut self, record: &Record<'_>) -> io::Result<()> {
        let mut wire = [0; HEADER + MAX_PAYLOAD];
        let length = record.encode(&mut wire).unwrap_or(0);
        // The guest would say no more than that it does not understand it.
        if !matches!(Record::decode(&wire[..length]), Ok(Some(_))) {
            let name = match record {
                Record::Directory { name }
                | Record::Enter { name }
                | Record::File { name, .. }
                | Record::Symlink { name, .. }
                | Record::Node { name, .. }
                | Record::Attribute { name, .. } => name,
                _ => &[][..],
            };
            return Err(NotUnpacked::of(name, "is more than a file system of Linux takes").0);
        }
        self.0.write_all(&wire[..length])
    }

    /// Says of the innermost item what is said at its end.
    pub fn leave(&mut self, about: &About, attributes: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        self.tell(&Record::Owner(about.owner))?;
        for (name, value) in attributes {
            if value.len() > MAX_ATTRIBUTE {
                return Err(NotUnpacked::of(name, "is longer than an attribute that is copied").0);
            }
            self.tell(&Record::Attribute { name, value })?;
        }
        self.tell(&Record::Leave(about.modified))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What is said of an item beside its content.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub owner: Owner,
    pub modified: Modified,
}

impl About {
    /// As an archive says.
    pub fn of(header: &Header, owners: Owners) -> io::Result<Self> {
        let number = |id: u64| u32::try_from(id).map_err(io::Error::other);
        let mode = header.mode()? & PERMISSIONS;
        let owner = match owners {
            Owners::Mine => Owner {
                uid: 0,
                gid: 0,
                mode: mode & 0o777,
            },
            Owners::Theirs => Owner {
                uid: number(header.uid()?)?,
                gid: number(header.gid()?)?,
                mode,
            },
        };
        let modified = Modified {
            seconds: header.mtime()?.cast_signed(),
            nanoseconds: 0,
        };
        Ok(Self { owner, modified })
    }

    /// A header that says so.
    pub fn header(&self, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(self.owner.mode & PERMISSIONS);
        header.set_uid(self.owner.uid.into());
        header.set_gid(self.owner.gid.into());
        // An archive knows no time before 1970.
        header.set_mtime(self.modified.seconds.try_into().unwrap_or(0));
        header
    }

    /// That of a FIFO or a device; nothing if it is neither.
    pub fn node(&self, device: u32) -> Option<Header> {
        let kind = match FileType::from_raw_mode(self.owner.mode) {
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            _ => return None,
        };
        let mut header = self.header(kind);
        let device = u64::from(device);
        if kind != EntryType::Fifo {
            header.set_device_major(rustix::fs::major(device)).ok()?;
            header.set_device_minor(rustix::fs::minor(device)).ok()?;
        }
        header.set_cksum();
        Some(header)
    }

    /// The record of one.
    pub fn as_node<'a>(&self, header: &Header, name: &'a [u8]) -> io::Result<Record<'a>> {
        let kind = match header.entry_type() {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        // A FIFO need not say any.
        let device = match kind {
            FileType::Fifo => 0,
            _ => {
                let numbers = (header.device_major()?, header.device_minor()?);
                let (Some(major), Some(minor)) = numbers else {
                    return Err(NotUnpacked::of(name, "is a device without a number").0);
                };
                rustix::fs::makedev(major, minor)
            }
        };
        Ok(Record::Node {
            owner: Owner {
                mode: kind.as_raw_mode() | self.owner.mode,
                ..self.owner
            },
            modified: self.modified,
            device: u32::try_from(device).map_err(io::Error::other)?,
            name,
        })
    }
}
