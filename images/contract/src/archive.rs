//! What is copied between a host and a guest: a tree of files as a stream of records, the same in both directions.
//!
//! A [`Record::Directory`] or [`Record::File`] begins an item in the innermost directory that has begun. What is in it follows,
//! then [`Record::Owner`], its extended attributes, and [`Record::Leave`]: writing to a file, or putting something into a
//! directory, would change what was set before. A guest says with [`Record::Ahead`] at once what will be said then. [`Record::Symlink`] and [`Record::Node`] are items by themselves. The
//! stream is one item and [`Record::End`]; without that it was cut off.
//!
//! An item is named by one component of a path, so that whoever receives it holds the directory that it belongs to, and needs to
//! look up nothing that the sender could lead elsewhere. Records have the form of the [channel](crate::channel)'s frames.

use crate::channel::FrameError;
use crate::channel::fields::{Fields, Frame, message};

/// How many directories may be in each other: whoever receives them has all of them open.
pub const MAX_DEPTH: usize = 256;

/// The kernel's NAME_MAX and PATH_MAX, the latter without the NUL byte.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;

/// The longest piece of a file in one record, in bytes.
pub const MAX_DATA: usize = 8 << 10;

/// The longest value of an extended attribute that is copied, in bytes: what a record holds beside its name.
pub const MAX_ATTRIBUTE: usize = 15 << 10;

/// The permissions in a mode, set-user-ID and the like among them.
pub const PERMISSIONS: u32 = 0o7777;

/// Whose an item is, and what they may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// The kernel's st_mode: of a [`Record::Node`] with its type, of all others the [`PERMISSIONS`].
    pub mode: u32,
}

/// When an item was last modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modified {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// And nanoseconds, fewer than a second's.
    pub nanoseconds: u32,
}

/// A piece of what is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A directory begins.
    Directory {
        /// Its name.
        name: &'a [u8],
    },
    /// A plain file begins.
    File {
        /// Its name.
        name: &'a [u8],
        /// How long it is, in bytes. What no [`Record::Data`] tells of is a hole.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Whose it is; a link has no permissions.
        owner: Owner,
        /// When it was made.
        modified: Modified,
        /// Its name.
        name: &'a [u8],
        /// What it says.
        target: &'a [u8],
    },
    /// A FIFO, or a device.
    Node {
        /// Whose it is.
        owner: Owner,
        /// When it was made.
        modified: Modified,
        /// The kernel's number of the device.
        device: u32,
        /// Its name.
        name: &'a [u8],
    },
    /// What is in the file.
    Data {
        /// Where, in bytes; behind what was told of before.
        offset: u64,
        /// One byte to [`MAX_DATA`].
        bytes: &'a [u8],
    },
    /// Whose the innermost item is.
    Owner(Owner),
    /// An extended attribute of the innermost item.
    Attribute {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The innermost item is complete.
    Leave(Modified),
    /// So is all.
    End,
    /// A directory begins that is not copied, but has something in it that is: it stays as it is or, if there is none, is
    /// root's as any other. Only for a guest.
    Enter {
        /// Its name.
        name: &'a [u8],
    },
    /// What the innermost item's owner and time will be, for whoever has to know before its content. Only from a guest.
    Ahead {
        /// Whose it will be.
        owner: Owner,
        /// When it was last modified.
        modified: Modified,
    },
}

impl<'a> Record<'a> {
    /// Reads the first record in `bytes`, and says how long it is; nothing while it is incomplete.
    ///
    /// # Errors
    ///
    /// When what comes first is no record.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        message(bytes, 1..=11, read)
    }

    /// Writes the record to the start of `out` and returns its length; nothing if it does not fit, or not into a frame.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut frame = Frame::new(out, self.kind());
        match *self {
            Self::Directory { name } | Self::Enter { name } => frame.put(name),
            Self::File { name, size } => {
                frame.put(&size.to_le_bytes());
                frame.put(name);
            }
            Self::Symlink {
                owner,
                modified,
                name,
                target,
            } => {
                put_owner(&mut frame, owner);
                put_modified(&mut frame, modified);
                put_short(&mut frame, name);
                frame.put(target);
            }
            Self::Node {
                owner,
                modified,
                device,
                name,
            } => {
                put_owner(&mut frame, owner);
                put_modified(&mut frame, modified);
                frame.put(&device.to_le_bytes());
                frame.put(name);
            }
            Self::Data { offset, bytes } => {
                frame.put(&offset.to_le_bytes());
                frame.put(bytes);
            }
            Self::Owner(owner) => put_owner(&mut frame, owner),
            Self::Ahead { owner, modified } => {
                put_owner(&mut frame, owner);
                put_modified(&mut frame, modified);
            }
            Self::Attribute { name, value } => {
                put_short(&mut frame, name);
                frame.put(value);
            }
            Self::Leave(modified) => put_modified(&mut frame, modified),
            Self::End => {}
        }
        frame.finish()
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Directory { .. } => 1,
            Self::File { .. } => 2,
            Self::Symlink { .. } => 3,
            Self::Node { .. } => 4,
            Self::Data { .. } => 5,
            Self::Owner(_) => 6,
            Self::Attribute { .. } => 7,
            Self::Leave(_) => 8,
            Self::End => 9,
            Self::Enter { .. } => 10,
            Self::Ahead { .. } => 11,
        }
    }
}

fn put_owner(frame: &mut Frame<'_>, owner: Owner) {
    for number in [owner.uid, owner.gid, owner.mode] {
        frame.put(&number.to_le_bytes());
    }
}

fn put_modified(frame: &mut Frame<'_>, modified: Modified) {
    frame.put(&modified.seconds.to_le_bytes());
    frame.put(&modified.nanoseconds.to_le_bytes());
}

/// With its length before it. One that is too long for that is refused where it is read.
fn put_short(frame: &mut Frame<'_>, bytes: &[u8]) {
    frame.put(&[bytes.len().min(MAX_NAME) as u8]);
    frame.put(bytes);
}

/// Reads the fields of a record; nothing if one is missing or cannot be.
fn read<'a>(kind: u8, fields: &mut Fields<'a>) -> Option<Record<'a>> {
    Some(match kind {
        1 => Record::Directory {
            name: name(fields.rest())?,
        },
        2 => Record::File {
            size: size(fields.u64()?)?,
            name: name(fields.rest())?,
        },
        3 => Record::Symlink {
            owner: plain_owner(fields)?,
            modified: modified(fields)?,
            name: name(short(fields)?)?,
            target: text(fields.rest(), MAX_TARGET)?,
        },
        4 => Record::Node {
            owner: owner(fields)?,
            modified: modified(fields)?,
            device: fields.u32()?,
            name: name(fields.rest())?,
        },
        5 => {
            let (offset, bytes) = (fields.u64()?, fields.rest());
            size(offset.checked_add(bytes.len() as u64)?)?;
            let some = (1..=MAX_DATA).contains(&bytes.len());
            Record::Data {
                offset,
                bytes: some.then_some(bytes)?,
            }
        }
        6 => Record::Owner(plain_owner(fields)?),
        7 => Record::Attribute {
            name: text(short(fields)?, MAX_NAME)?,
            value: Some(fields.rest()).filter(|value| value.len() <= MAX_ATTRIBUTE)?,
        },
        8 => Record::Leave(modified(fields)?),
        9 => Record::End,
        10 => Record::Enter {
            name: name(fields.rest())?,
        },
        11 => Record::Ahead {
            owner: plain_owner(fields)?,
            modified: modified(fields)?,
        },
        _ => return None,
    })
}

fn owner(fields: &mut Fields<'_>) -> Option<Owner> {
    Some(Owner {
        uid: fields.u32()?,
        gid: fields.u32()?,
        mode: fields.u32()?,
    })
}

/// Of what has its type by its record.
fn plain_owner(fields: &mut Fields<'_>) -> Option<Owner> {
    owner(fields).filter(|owner| owner.mode & !PERMISSIONS == 0)
}

fn modified(fields: &mut Fields<'_>) -> Option<Modified> {
    Some(Modified {
        seconds: i64::from_le_bytes(fields.u64()?.to_le_bytes()),
        nanoseconds: fields.u32().filter(|ns| *ns < 1_000_000_000)?,
    })
}

fn short<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let length = fields.u8()?;
    let (field, rest) = fields.0.split_at_checked(length.into())?;
    fields.0 = rest;
    Some(field)
}

/// As long as a file can be.
fn size(size: u64) -> Option<u64> {
    Some(size).filter(|size| i64::try_from(*size).is_ok())
}

/// What the kernel takes as a string that is not empty.
fn text(bytes: &[u8], most: usize) -> Option<&[u8]> {
    let fits = (1..=most).contains(&bytes.len()) && !bytes.contains(&0);
    fits.then_some(bytes)
}

/// One component of a path, which leads to nothing but an item of that name.
pub fn name(bytes: &[u8]) -> Option<&[u8]> {
    let leads = bytes.contains(&b'/') || bytes == b"." || bytes == b"..";
    text(bytes, MAX_NAME).filter(|_| !leads)
}

#[cfg(test)]
mod tests;
