//! What has changed as the archive of a layer: what is gone, and directories that hide others, as the image specification has
//! them (layer.md, "Whiteouts").

use super::records::{Attributes, Changes, Item, Kind};
use super::{Error, is_of_init, with};
use kvmlet_control::agent::Agent;
use kvmlet_control::agent::archive::PERMISSIONS;
use kvmlet_control::agent::records::Content;
use kvmlet_image::Digest;
use kvmlet_image::layer::LIMITS;
use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// What stands in front of the name of something that is gone, and for all that was in a directory.
const GONE: &[u8] = b".wh.";
const ALL_GONE: &[u8] = b".wh..wh..opq";
/// Where extended attributes are, in the records of a pax header.
const ATTRIBUTE: &str = "SCHILY.xattr.";
/// What is written at once, or is a hole.
const PIECE: usize = 64 << 10;

/// An archive, in a file that is to be read from its beginning.
#[derive(Debug)]
pub struct Archived {
    /// All of it.
    pub file: File,
    /// Of it.
    pub digest: Digest,
}

/// Writes what a guest has changed into an empty file. Zeros are holes there.
///
/// # Errors
/// When the guest does not tell, nonsense, or more than a layer holds; when it cannot be written.
pub fn archive(agent: &mut Agent, file: File) -> Result<Archived, Error> {
    with(agent, true, |changes| write(changes, file))
}

pub(super) fn write(changes: &mut Changes<impl Read>, file: File) -> Result<Archived, Error> {
    let mut builder = Builder::new(Sparse::new(file));
    while let Some(item) = changes.item().map_err(Error::Read)? {
        if !is_of_init(&item, false) {
            append(&mut builder, changes, &item).map_err(told)?;
        }
    }
    builder.into_inner().map_err(told)?.finish().map_err(told)
}

/// What was read and what was written fail by different names.
fn told(error: io::Error) -> Error {
    match error.get_ref().and_then(|it| it.downcast_ref::<TooLong>()) {
        Some(_) => Error::Long(LIMITS.length),
        None if error.get_ref().is_some_and(|it| it.is::<FromGuest>()) => Error::Read(error),
        None => Error::Write(error),
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn append(
    builder: &mut Builder<Sparse>,
    changes: &mut Changes<impl Read>,
    item: &Item,
) -> io::Result<()> {
    let name = item.path.rsplit(|byte| *byte == b'/').next();
    let name = name.unwrap_or_default();
    let around = &item.path[..item.path.len() - name.len()];
    if name.starts_with(GONE) {
        let text = String::from_utf8_lossy(&item.path);
        log::warn!("`{}` is no name that a layer can have", text.escape_debug());
        return Ok(());
    }
    let mut header = header(item);
    match &item.kind {
        Kind::Removed => {
            let whole = [around, GONE, name].concat();
            empty(builder, &whole)
        }
        Kind::Directory { is_opaque } => {
            attributes(builder, &item.attributes)?;
            let whole = [&item.path[..], b"/"].concat();
            builder.append_data(&mut header, path(&whole), io::empty())?;
            match is_opaque {
                true => empty(builder, &[&whole[..], ALL_GONE].concat()),
                false => Ok(()),
            }
        }
        Kind::File(size) => {
            attributes(builder, &item.attributes)?;
            header.set_size(*size);
            let content = Content::new(*size);
            let mut content = FileContent { changes, content };
            builder.append_data(&mut header, path(&item.path), &mut content)
        }
        Kind::Symlink(target) => builder.append_link(&mut header, path(&item.path), path(target)),
        Kind::Node(kind, device) => {
            let device = u64::from(*device);
            if *kind != FileType::Fifo {
                header.set_device_major(rustix::fs::major(device))?;
                header.set_device_minor(rustix::fs::minor(device))?;
            }
            builder.append_data(&mut header, path(&item.path), io::empty())
        }
    }
}

fn header(item: &Item) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(match &item.kind {
        Kind::Directory { .. } => EntryType::Directory,
        Kind::Symlink(_) => EntryType::Symlink,
        Kind::Node(FileType::CharacterDevice, _) => EntryType::Char,
        Kind::Node(FileType::BlockDevice, _) => EntryType::Block,
        Kind::Node(..) => EntryType::Fifo,
        Kind::File(_) | Kind::Removed => EntryType::Regular,
    });
    header.set_size(0);
    header.set_mode(match item.kind {
        Kind::Symlink(_) => 0o777,
        _ => item.owner.mode & PERMISSIONS,
    });
    header.set_uid(item.owner.uid.into());
    header.set_gid(item.owner.gid.into());
    // An archive knows no time before 1970.
    header.set_mtime(item.modified.seconds.try_into().unwrap_or(0));
    header
}

/// A file that says something by its name.
fn empty(builder: &mut Builder<Sparse>, name: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_mtime(0);
    builder.append_data(&mut header, path(name), io::empty())
}

fn attributes(builder: &mut Builder<Sparse>, all: &Attributes) -> io::Result<()> {
    let named = all.iter().filter_map(|(name, value)| {
        let name = std::str::from_utf8(name).ok()?;
        Some((format!("{ATTRIBUTE}{name}"), &value[..]))
    });
    let named: Vec<(String, &[u8])> = named.collect();
    if named.is_empty() {
        return Ok(());
    }
    builder.append_pax_extensions(named.iter().map(|(name, value)| (&**name, *value)))
}

/// The content of a file.
struct FileContent<'a, R> {
    changes: &'a mut Changes<R>,
    content: Content,
}

impl<R: Read> Read for FileContent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = self.content.fill(buffer, || self.changes.content());
        filled.map_err(|error| io::Error::other(FromGuest(error)))
    }
}

/// An error of what comes, and not of what is written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct FromGuest(io::Error);

#[derive(Debug, thiserror::Error)]
#[error("it is longer than a layer")]
struct TooLong;

/// A file that is written, with holes for zeros, and its digest.
struct Sparse {
    file: File,
    piece: Vec<u8>,
    length: u64,
    digest: Sha256,
}

impl Sparse {
    fn new(file: File) -> Self {
        Self {
            file,
            piece: Vec::with_capacity(PIECE),
            length: 0,
            digest: Sha256::new(),
        }
    }

    fn put(&mut self) -> io::Result<()> {
        match self.piece.iter().all(|byte| *byte == 0) {
            true => self.file.seek_relative(self.piece.len() as i64)?,
            false => self.file.write_all(&self.piece)?,
        }
        self.piece.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Archived> {
        self.put()?;
        // A hole at the end counts, too.
        self.file.set_len(self.length)?;
        self.file.rewind()?;
        Ok(Archived {
            file: self.file,
            digest: Digest(self.digest.finalize().into()),
        })
    }
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.digest.update(&bytes[..count]);
        self.piece.extend_from_slice(&bytes[..count]);
        self.length += count as u64;
        if self.length > LIMITS.length {
            return Err(io::Error::other(TooLong));
        }
        if self.piece.len() == PIECE {
            self.put()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
