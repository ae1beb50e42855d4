//! Files by names: a directory, or an archive of them. Names of strangers lead nowhere else.

use super::Error;
use crate::layer::tar::{self, Archive};
use crate::layer::{Decompressed, LIMITS};
use crate::tree::Name;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// The most files that an archive of images has.
const MAX_FILES: usize = 100_000;
/// What is copied at once, in bytes.
const PIECE: u64 = 64 << 10;
/// The longest path that is looked at, and how many names it has at most; those of images have three.
const MAX_PATH: usize = 4096;
const MAX_DEPTH: usize = 32;
/// The most that the paths of an archive have together, in bytes.
const MAX_PATHS: usize = 32 << 20;
/// Links that are followed from one to the next; docker has archives where a layer is a link to another image's.
const MAX_LINKS: usize = 8;
/// A FIFO keeps nobody waiting.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Files by names.
#[derive(Debug)]
pub enum Bundle {
    /// Those of a directory.
    Directory(PathBuf),
    /// Those of an archive.
    Archive {
        /// Not compressed.
        file: File,
        /// By their paths, without what does not count in them.
        members: BTreeMap<Vec<Name>, Member>,
    },
}

/// A member of an archive.
#[derive(Clone, Debug)]
pub enum Member {
    /// Where its data is.
    Data {
        /// In the archive, in bytes.
        at: u64,
        /// In bytes.
        length: u64,
    },
    /// What it leads to.
    Link(Vec<Name>),
}

/// A file of a bundle.
pub type Content = io::Take<At>;

/// A file from a place on.
#[derive(Debug)]
pub struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The names of a path below another one; `..` does not leave the root. `None` for what no file of an image's is
/// called.
fn path(from: &[Name], text: &[u8]) -> Option<Vec<Name>> {
    if text.len() > MAX_PATH {
        return None;
    }
    let mut names = from.to_vec();
    for part in text.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            _ => names.push(Name::new(part)?),
        }
    }
    (names.len() <= MAX_DEPTH).then_some(names)
}

fn length(path: &[Name]) -> usize {
    path.iter().map(|name| name.as_bytes().len()).sum()
}

impl Bundle {
    /// An archive, compressed or not. What cannot be read from anywhere (a pipe), or is compressed, is kept in an unnamed
    /// file meanwhile, which `place` makes.
    ///
    /// # Errors
    /// When it is no archive, or cannot be read or kept.
    pub fn archive(
        mut file: File,
        place: impl FnOnce() -> io::Result<File>,
    ) -> Result<Self, Error> {
        let is_regular = file.metadata().map_err(Error::Read)?.is_file();
        let mut source = Decompressed::new(&file).map_err(Error::Read)?;
        if is_regular && source.is_plain() {
            drop(source);
            file.rewind().map_err(Error::Read)?;
        } else {
            let mut copy = place().map_err(Error::Spool)?;
            spool(&mut source, &mut copy)?;
            drop(source);
            copy.rewind().map_err(Error::Spool)?;
            file = copy;
        }
        let mut archive = Archive::new(BufReader::with_capacity(256 << 10, &file));
        let mut members = BTreeMap::new();
        let mut text = 0;
        while let Some(member) = archive.next_member()? {
            let Some(name) = path(&[], &member.path) else {
                continue;
            };
            let around = name.split_last().map_or(&[][..], |(_, around)| around);
            let found = match &member.kind {
                // One with holes is no file of an image's.
                tar::Kind::File { size, stretches } if stretches.len() <= 1 => Member::Data {
                    at: archive.position(),
                    length: *size,
                },
                tar::Kind::Symlink(target) => match path(around, target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                tar::Kind::Link(target) => match path(&[], target) {
                    Some(target) => Member::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            text += length(&name);
            if let Member::Link(target) = &found {
                text += length(target);
            }
            if text > MAX_PATHS {
                return Err(Error::LongPaths(MAX_PATHS));
            }
            members.insert(name, found);
            if members.len() > MAX_FILES {
                return Err(Error::ManyFiles(MAX_FILES));
            }
        }
        drop(archive);
        Ok(Self::Archive { file, members })
    }

    /// Opens a file, and says how long it is; nothing if there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(&self, name: &str) -> Result<Option<(Content, u64)>, Error> {
        let Some(mut names) = path(&[], name.as_bytes()) else {
            return Ok(None);
        };
        match self {
            Self::Directory(directory) => {
                let mut path = directory.clone();
                for name in &names {
                    path.push(OsStr::from_bytes(name.as_bytes()));
                }
                let mut options = File::options();
                let opened = options.read(true).custom_flags(NONBLOCK).open(&path);
                let file = match opened {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    other => other.map_err(Error::Read)?,
                };
                let meta = file.metadata().map_err(Error::Read)?;
                match meta.is_file() {
                    true => Ok(Some((At { file, at: 0 }.take(meta.len()), meta.len()))),
                    false => Ok(None),
                }
            }
            Self::Archive { file, members } => {
                for _ in 0..MAX_LINKS {
                    match members.get(&names) {
                        None => return Ok(None),
                        Some(Member::Link(target)) => names.clone_from(target),
                        Some(Member::Data { at, length }) => {
                            let file = file.try_clone().map_err(Error::Read)?;
                            return Ok(Some((At { file, at: *at }.take(*length), *length)));
                        }
                    }
                }
                Ok(None)
            }
        }
    }

    /// All of a file that is not long.
    ///
    /// # Errors
    /// When it is not there, or longer than `most`.
    pub fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        let missing = || Error::Missing(name.into());
        let (content, length) = self.open(name)?.ok_or_else(missing)?;
        if length > most {
            let name = name.into();
            return Err(Error::LongFile { name, length, most });
        }
        let mut bytes = Vec::new();
        BufReader::new(content)
            .read_to_end(&mut bytes)
            .map_err(Error::Read)?;
        Ok(bytes)
    }
}

/// Copies an archive that is not compressed into an empty file. Blocks of zeros are holes there. What does not begin as an
/// archive is not written at all: a stranger may have made many gigabytes of it.
///
/// # Errors
/// When it is no archive, longer than one may be, or cannot be read or written.
pub fn spool(source: &mut impl Read, copy: &mut File) -> Result<(), Error> {
    const BLOCK: u64 = 512;
    let mut piece = Vec::with_capacity(PIECE as usize);
    let mut first = source.by_ref().take(BLOCK);
    first.read_to_end(&mut piece).map_err(Error::Read)?;
    Archive::check_begin(&piece[..])?;
    let mut length = 0;
    loop {
        let mut rest = source.by_ref().take(PIECE - piece.len() as u64);
        rest.read_to_end(&mut piece).map_err(Error::Read)?;
        if piece.is_empty() {
            // A hole at the end counts, too.
            return copy.set_len(length).map_err(Error::Spool);
        }
        length += piece.len() as u64;
        if length > LIMITS.length {
            return Err(Error::Long(LIMITS.length));
        }
        let written = match piece.iter().all(|byte| *byte == 0) {
            true => copy.seek_relative(piece.len() as i64),
            false => copy.write_all(&piece),
        };
        written.map_err(Error::Spool)?;
        piece.clear();
    }
}
