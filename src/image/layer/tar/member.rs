//! What archives consist of.

use crate::blob::Stretch;
use crate::tree::Time;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its data is to be read.
    File {
        /// With holes.
        size: u64,
        /// What is not a hole; all of it is valid.
        stretches: Vec<Stretch>,
    },
    /// Another name of an earlier member.
    Link(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A character device with its numbers.
    Character(i64, i64),
    /// A block device with its numbers.
    Block(i64, i64),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where its header begins.
    pub at: u64,
    /// As it is written, which may be anything without NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The lower 12 bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Of the last change.
    pub mtime: Time,
    /// With whole names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}
