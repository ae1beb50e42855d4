//! From a tree of files to records.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use kvmlet_contract::archive::{MAX_ATTRIBUTE, MAX_DATA, MAX_DEPTH, Owner, Record};
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD};
use linux_raw_sys::general::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};

use super::{c_str, last, parent};
use crate::sys::tree::{Status, Stretch};
use crate::sys::{self, Errno, File};

/// How much of the names of attributes is read, in bytes: as much as the kernel hands out (XATTR_LIST_MAX).
const ATTRIBUTE_NAMES: usize = 64 << 10;

struct Packer {
    /// Where it is, for those who are told of a failure.
    path: Vec<u8>,
    what: What,
    record: [u8; HEADER + MAX_PAYLOAD],
    piece: [u8; MAX_ATTRIBUTE],
}

/// What of items is told, and in which order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// All of it, their attributes at the end.
    Copy,
    /// All of it, their attributes ahead.
    Changes,
    /// That without content.
    Names,
}

impl Packer {
    fn new(path: &[u8], what: What) -> Self {
        Self {
            path: path.to_vec(),
            what,
            record: [0; HEADER + MAX_PAYLOAD],
            piece: [0; MAX_ATTRIBUTE],
        }
    }
}

/// Writes what has changed of the root, which a path leads to, as [`kvmlet_contract::channel::CHANGES`] says.
pub fn changes(path: &CStr) -> Result<(), String> {
    changed(path, What::Changes)
}

/// The same without the content of files.
pub fn changed_names(path: &CStr) -> Result<(), String> {
    changed(path, What::Names)
}

fn changed(path: &CStr, what: What) -> Result<(), String> {
    let mut packer = Packer::new(b"", what);
    let root = File::open(path, sys::O_RDONLY | sys::O_DIRECTORY);
    let root = root.map_err(|error| packer.failed("open the changes of", error))?;
    packer.item(&root, c".", 0)?;
    packer.tell(&Record::End)
}

/// Writes what is at a path to standard output, and what a symbolic link there says, not what it leads to. A path that ends
/// in `/.` is that of a directory, even if a link leads there.
pub fn pack(path: &CStr) -> Result<(), String> {
    let mut packer = Packer::new(path.to_bytes(), What::Copy);
    let mut name = [0; 256];
    let named = path.to_bytes();
    let (directory, name) = match named.ends_with(b"/.") {
        true => (File::open(path, sys::O_RDONLY | sys::O_DIRECTORY), Ok(c".")),
        false => (parent(path), c_str(last(named).1, &mut name)),
    };
    let directory = directory.map_err(|error| packer.failed("open the directory of", error))?;
    let name = name.map_err(|error| packer.failed("copy", error))?;
    packer.item(&directory, name, 0)?;
    packer.tell(&Record::End)
}

impl Packer {
    fn failed(&self, verb: &str, error: Errno) -> String {
        let path = String::from_utf8_lossy(&self.path);
        format!("{verb} \"{path}\": {error}")
    }

    fn tell(&mut self, record: &Record<'_>) -> Result<(), String> {
        let length = record.encode(&mut self.record);
        let length = length.ok_or_else(|| self.failed("tell of", Errno::ENAMETOOLONG))?;
        send(&self.record[..length])
    }

    fn item(&mut self, directory: &File, name: &CStr, depth: usize) -> Result<(), String> {
        let status = directory.status_of(name);
        let status = status.map_err(|error| self.failed("read", error))?;
        let named = match name.to_bytes() {
            // No record has that name, and who unpacks a directory alone calls it as it likes.
            b"." => b"directory",
            named => named,
        };
        match status.mode & S_IFMT {
            S_IFDIR if depth == MAX_DEPTH => Err(self.failed("go into", Errno::ELOOP)),
            S_IFDIR => {
                let open = directory.open_in(name, sys::O_RDONLY | sys::O_DIRECTORY, 0);
                let open = open.map_err(|error| self.failed("read", error))?;
                self.tell(&Record::Directory { name: named })?;
                self.begin(&open, &status)?;
                self.entries(&open, depth)?;
                self.leave(&open, &status)
            }
            S_IFREG => {
                let open = directory.open_in(name, sys::O_RDONLY, 0);
                let open = open.map_err(|error| self.failed("read", error))?;
                let size = status.size;
                self.tell(&Record::File { name: named, size })?;
                self.begin(&open, &status)?;
                if self.what != What::Names {
                    self.content(&open, size)?;
                }
                self.leave(&open, &status)
            }
            S_IFLNK => {
                let mut target = [0; 4096];
                let target = directory.link_target(name, &mut target);
                let target = target.map_err(|error| self.failed("read", error))?;
                self.tell(&Record::Symlink {
                    owner: status.owner,
                    modified: status.modified,
                    name: named,
                    target,
                })
            }
            // Nobody could connect to a copy.
            S_IFSOCK => Ok(()),
            _ => self.tell(&Record::Node {
                owner: Owner {
                    mode: status.mode,
                    ..status.owner
                },
                modified: status.modified,
                device: status.device,
                name: named,
            }),
        }
    }

    fn entries(&mut self, directory: &File, depth: usize) -> Result<(), String> {
        let length = self.path.len();
        let mut failure: Result<(), String> = Ok(());
        let mut see = |name: &CStr| {
            if failure.is_err() || name == c"." || name == c".." {
                return;
            }
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            failure = self.item(directory, name, depth + 1);
            self.path.truncate(length);
        };
        let listed = directory.each_entry(&mut see);
        failure.and(listed.map_err(|error| self.failed("read", error)))
    }

    fn content(&mut self, file: &File, size: u64) -> Result<(), String> {
        let mut at = 0;
        while at < size {
            let next = file.next_data(at, size);
            let (start, end) = match next.map_err(|error| self.failed("read", error))? {
                Stretch::Data { start, end } => (start, end.min(size)),
                Stretch::End => return Ok(()),
            };
            at = start;
            while at < end {
                let most = (end - at).min(MAX_DATA as u64) as usize;
                let count = file.read_at(&mut self.piece[..most], at);
                let count = count.map_err(|error| self.failed("read", error))?;
                if count == 0 {
                    // It has become shorter meanwhile.
                    return Ok(());
                }
                let bytes = &self.piece[..count];
                let record = Record::Data { offset: at, bytes };
                let length = record.encode(&mut self.record).unwrap_or(0);
                send(&self.record[..length])?;
                at += count as u64;
            }
        }
        Ok(())
    }

    /// What is said of an item before what is in it: also what [`Self::leave`] is going to say.
    fn begin(&mut self, open: &File, status: &Status) -> Result<(), String> {
        let (owner, modified) = (status.owner, status.modified);
        self.tell(&Record::Ahead { owner, modified })?;
        match self.what {
            What::Copy => Ok(()),
            What::Changes | What::Names => self.attributes(open),
        }
    }

    /// What is said of an item when all that is in it was.
    fn leave(&mut self, open: &File, status: &Status) -> Result<(), String> {
        self.tell(&Record::Owner(status.owner))?;
        if self.what == What::Copy {
            self.attributes(open)?;
        }
        self.tell(&Record::Leave(status.modified))
    }

    fn attributes(&mut self, open: &File) -> Result<(), String> {
        let mut names = [0; ATTRIBUTE_NAMES];
        let names = open.attributes(&mut names);
        let names = names.map_err(|error| self.failed("read the attributes of", error))?;
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let value = match open.attribute(name, &mut self.piece) {
                Ok(value) => value,
                // It is gone, or the kernel's own and not for us.
                Err(Errno::ENODATA | Errno::EOPNOTSUPP) => continue,
                Err(error) => return Err(self.failed("read the attributes of", error)),
            };
            let name = name.to_bytes();
            let record = Record::Attribute { name, value };
            let length = record.encode(&mut self.record);
            let length = length.ok_or_else(|| self.failed("tell of", Errno::E2BIG))?;
            send(&self.record[..length])?;
        }
        Ok(())
    }
}

fn send(mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        match sys::write(1, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("pass on what is copied: {error}")),
        }
    }
    Ok(())
}
