//! What is in a directory, and how it is read.

use crate::blob::{self, Stretch};
use crate::erofs;
use crate::tree::TooLarge;
use rustix::fs::{OFlags, SeekFrom, lgetxattr, llistxattr, seek};
use rustix::io::Errno;
use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files with more stretches than this are as if they had no holes.
const MAX_STRETCHES: usize = 4096;
/// What all names of extended attributes, or a value, have at most (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const MAX_XATTR: usize = 64 << 10;
/// Of the host's policy.
const SELINUX: &[u8] = b"security.selinux";

/// Why a directory is not packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something in it cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody writes to it.
    #[error("`{}` has changed while it was read", .0.display())]
    Changed(PathBuf),
    /// The archive or the image cannot be written.
    #[error("it cannot be written")]
    Write(#[from] io::Error),
    /// Something in it is more than an image may have.
    #[error("`{}` cannot be in an image", .path.display())]
    Unfit {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        why: Unfit,
    },
    /// It is more than an image may have.
    #[error(transparent)]
    Erofs(#[from] erofs::Error),
}

/// What an image does not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// A file that is too long, or too much altogether.
    #[error(transparent)]
    Content(#[from] blob::Error),
    /// More than a file can have.
    #[error(transparent)]
    Xattrs(#[from] TooLarge),
    /// More than can be numbered.
    #[error("more files than an image can have")]
    Many,
    /// A link to nothing, or a number or name that is not Linux's.
    #[error("a name, link or device that an image cannot have")]
    Odd,
}

impl Error {
    /// What cannot be read.
    pub fn read(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Read {
            path: path.into(),
            source,
        }
    }
}

/// Something in a directory, or that itself.
#[derive(Debug)]
pub struct Found<'a> {
    /// The host's path.
    pub path: &'a Path,
    /// The path from the directory on, which is `.` itself.
    pub inside: &'a [u8],
    /// What it is.
    pub metadata: &'a Metadata,
}

impl Found<'_> {
    fn is_root(&self) -> bool {
        self.inside == b"."
    }
}

/// Visits all that is in a directory, itself first, in the order of names. A directory's visit says what its files are told
/// of it.
///
/// # Errors
/// When something cannot be read, or what `visit` says.
pub fn walk<T: Copy>(
    directory: &Path,
    mut visit: impl FnMut(&Found<'_>, Option<T>) -> Result<T, Error>,
) -> Result<(), Error> {
    let mut waiting = vec![(directory.to_path_buf(), b".".to_vec(), None)];
    while let Some((path, inside, parent)) = waiting.pop() {
        let metadata = match inside == b"." {
            // It may be named by a link.
            true => fs::metadata(&path),
            false => fs::symlink_metadata(&path),
        };
        let metadata = metadata.map_err(Error::read(&path))?;
        let (path, inside) = (&path, &inside[..]);
        let found = Found {
            path,
            inside,
            metadata: &metadata,
        };
        let told = visit(&found, parent)?;
        if metadata.is_dir() {
            let entries = fs::read_dir(path).map_err(Error::read(path))?;
            let names = entries.map(|entry| Ok(entry?.file_name()));
            let mut names: Vec<_> = names
                .collect::<io::Result<_>>()
                .map_err(Error::read(path))?;
            // The last one is taken first.
            names.sort_unstable_by(|one, other| other.cmp(one));
            waiting.extend(names.into_iter().map(|child| {
                let below = [inside, b"/", child.as_bytes()].concat();
                (path.join(child), below, Some(told))
            }));
        }
    }
    Ok(())
}

/// Opens a file that was found, and waits for nobody.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    File::options().read(true).custom_flags(flags).open(path)
}

/// Reads part of a file, which has to be there, piece by piece.
///
/// # Errors
/// When it is not, or cannot be read, or what `take` says.
pub fn read(
    (file, path): (&File, &Path),
    part: Range<u64>,
    piece: &mut [u8],
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let mut at = part.start;
    while at < part.end {
        let length = (part.end - at).min(piece.len() as u64) as usize;
        let read = file.read_exact_at(&mut piece[..length], at);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed(path.into()),
            _ => Error::read(path)(error),
        })?;
        take(&piece[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// What of a file is not a hole.
pub fn stretches(file: &File, size: u64) -> io::Result<Vec<Stretch>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            other => other?.min(size),
        };
        let end = seek(file, SeekFrom::Hole(offset))?.min(size);
        if end <= offset || found.len() == MAX_STRETCHES {
            let length = size;
            return Ok(vec![Stretch { offset: 0, length }]);
        }
        let length = end - offset;
        found.push(Stretch { offset, length });
        at = end;
    }
    Ok(found)
}

/// The extended attributes of what was found, with whole names, sorted.
pub fn xattrs(found: &Found<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = match found.is_root() {
        true => found.path.canonicalize()?,
        false => found.path.into(),
    };
    let mut buffer = vec![0; MAX_XATTR];
    let length = match llistxattr(&path, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names: Vec<Vec<u8>> = buffer[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && *name != SELINUX)
        .map(Into::into)
        .collect();
    let mut all = Vec::new();
    for name in names {
        match lgetxattr(&path, &name[..], &mut buffer[..]) {
            // Somebody has removed it.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
            Ok(length) => all.push((name, buffer[..length].to_vec())),
        }
    }
    all.sort();
    Ok(all)
}
