//! Records as they come from a guest, and what they say of one item: nothing is believed that the item before did not make
//! room for.

use kvmlet_control::agent::archive::{MAX_DEPTH, Modified, Owner, Record};
use kvmlet_control::agent::channel::{OPAQUE, ORIGIN};
use kvmlet_control::agent::records::Records;
use rustix::fs::FileType;
use std::io::{self, Read};

/// Names and values of extended attributes.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The most that the attributes of an item have together, in bytes.
const MAX_ATTRIBUTES: usize = 1 << 20;
/// The overlay's own.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// Something that a guest has changed.
pub struct Item {
    /// From the root on, without a slash in front; the root's is empty.
    pub path: Vec<u8>,
    /// Whose it is, with permissions alone.
    pub owner: Owner,
    /// Since when.
    pub modified: Modified,
    /// But for the overlay's own.
    pub attributes: Attributes,
    /// Whether it was there before, and was changed.
    pub was_there: bool,
    /// The rest.
    pub kind: Kind,
}

/// What it is.
pub enum Kind {
    /// A directory; whether nothing is seen of one that was there before.
    Directory { is_opaque: bool },
    /// A file of that many bytes, which are read from [`Changes::content`].
    File(u64),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A FIFO or a device.
    Node(FileType, u32),
    /// It is gone.
    Removed,
}

/// Items as they come.
pub struct Changes<R> {
    records: Records<R>,
    path: Vec<Vec<u8>>,
    /// A file has begun, whose content was not read to the end.
    file: bool,
    has_begun: bool,
}

fn nonsense() -> io::Error {
    io::Error::other("the guest's agent sent what are no changes")
}

impl<R: Read> Changes<R> {
    /// Those that a stream has.
    pub fn new(stream: R) -> Self {
        Self {
            records: Records::new(stream),
            path: Vec::new(),
            file: false,
            has_begun: false,
        }
    }

    /// The next record, as `read` has it.
    fn next<T>(&mut self, read: impl FnOnce(&Record<'_>) -> Option<T>) -> io::Result<T> {
        self.records.take_if(read)?.ok_or_else(nonsense)
    }

    /// The path of an item in the innermost directory.
    fn inside(&self, name: &[u8]) -> Vec<u8> {
        // The outermost one is the root, which has no name.
        let around = self.path.iter().skip(1).map(Vec::as_slice);
        around.chain([name]).collect::<Vec<_>>().join(&b'/')
    }

    /// The next item; nothing behind the last one.
    pub fn item(&mut self) -> io::Result<Option<Item>> {
        self.leave_file()?;
        loop {
            let began = self.next(|record| Some(Begun::of(record)))?;
            return match began {
                Begun::End if self.has_begun && self.path.is_empty() => Ok(None),
                Begun::Left if self.path.pop().is_some() => continue,
                Begun::Owner if !self.path.is_empty() => continue,
                Begun::Directory(name) if self.path.len() <= MAX_DEPTH => {
                    if self.path.is_empty() && self.has_begun {
                        return Err(nonsense());
                    }
                    let path = match self.has_begun {
                        true => self.inside(&name),
                        false => Vec::new(),
                    };
                    self.has_begun = true;
                    self.path.push(name);
                    self.described(path, Kind::Directory { is_opaque: false })
                        .map(Some)
                }
                // All others are in the root.
                _ if self.path.is_empty() => Err(nonsense()),
                Begun::File(name, size) => {
                    let path = self.inside(&name);
                    self.file = true;
                    self.described(path, Kind::File(size)).map(Some)
                }
                Begun::Other(name, owner, modified, kind) => Ok(Some(Item {
                    path: self.inside(&name),
                    owner,
                    modified,
                    attributes: Vec::new(),
                    was_there: false,
                    kind,
                })),
                _ => Err(nonsense()),
            };
        }
    }

    /// What is said of an item before what is in it.
    fn described(&mut self, path: Vec<u8>, mut kind: Kind) -> io::Result<Item> {
        let (owner, modified) = self.next(|record| match record {
            Record::Ahead { owner, modified } => Some((*owner, *modified)),
            _ => None,
        })?;
        let mut attributes = Attributes::new();
        let (mut total, mut was_there) = (0, false);
        while let Some((name, value)) = self.attribute()? {
            total += name.len() + value.len();
            if total > MAX_ATTRIBUTES {
                return Err(nonsense());
            }
            if name == OPAQUE && value == b"y" {
                if let Kind::Directory { is_opaque } = &mut kind {
                    *is_opaque = true;
                }
            } else if name == ORIGIN {
                was_there = true;
            } else if !name.starts_with(OVERLAY) {
                attributes.push((name, value));
            }
        }
        Ok(Item {
            path,
            owner,
            modified,
            attributes,
            was_there,
            kind,
        })
    }

    fn attribute(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        self.records.take_if(|record| match record {
            Record::Attribute { name, value } => Some((name.to_vec(), value.to_vec())),
            _ => None,
        })
    }

    /// The next piece of the content of the file that has begun, and where in it that is; nothing behind the last one.
    pub fn content(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        match self.file {
            true => self.records.piece(),
            false => Ok(None),
        }
    }

    /// Passes over the rest of a file.
    fn leave_file(&mut self) -> io::Result<()> {
        if !self.file {
            return Ok(());
        }
        while self.content()?.is_some() {}
        self.file = false;
        loop {
            let is_last = self.next(|record| match record {
                Record::Owner(_) => Some(false),
                Record::Leave(_) => Some(true),
                _ => None,
            })?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A record, by what it begins.
enum Begun {
    Directory(Vec<u8>),
    File(Vec<u8>, u64),
    Other(Vec<u8>, Owner, Modified, Kind),
    Owner,
    Left,
    End,
    Nothing,
}

impl Begun {
    fn of(record: &Record<'_>) -> Self {
        match *record {
            Record::Directory { name } => Self::Directory(name.into()),
            Record::File { name, size } => Self::File(name.into(), size),
            Record::Symlink {
                owner,
                modified,
                name,
                target,
            } => Self::Other(name.into(), owner, modified, Kind::Symlink(target.into())),
            Record::Node {
                owner,
                modified,
                device,
                name,
            } => {
                let kind = match FileType::from_raw_mode(owner.mode) {
                    FileType::CharacterDevice if device == 0 => Kind::Removed,
                    kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                        Kind::Node(kind, device)
                    }
                    _ => return Self::Nothing,
                };
                Self::Other(name.into(), owner, modified, kind)
            }
            Record::Owner(_) => Self::Owner,
            Record::Leave(_) => Self::Left,
            Record::End => Self::End,
            _ => Self::Nothing,
        }
    }
}
