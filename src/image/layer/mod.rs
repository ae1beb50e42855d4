//! Reading a layer of an image: a tar archive, compressed or not, of what it adds to the layers below and what it takes
//! from them ("whiteouts"), as the OCI image specification (layer.md) says.
//!
//! Where that leaves something open: What a layer removes, and what it makes opaque, counts for the layers below only,
//! wherever it stands. A later member takes an earlier one's place; a directory keeps what is in it. The ways of a layer's
//! paths go through its own symbolic links, and stay within the root. Directories without a member of their own are those
//! of the layers below, or root's with mode 0755. A hard link is the file that it leads to, whatever attributes it has
//! itself; if the layer has not had that by then, it is one of the layers below.

mod changes;
mod compression;
mod digested;
mod rest;
pub mod tar;

pub use changes::{Changes, MAX_FILES, Path, Refused};
pub use compression::Decompressed;
pub use rest::{Rebuilt, Rest};

use crate::blob::{self, Blob, Sink};
use crate::tree::{Attributes, Device, Kind, MAX_TARGET, Name, Node, XattrName, Xattrs};
use digested::Digested;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use tar::{Archive, Member};

/// What a layer may have at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files, directories, and names that are removed.
    pub files: usize,
    /// Directories in each other. A layer may name just the innermost, so few bytes are many directories.
    pub depth: usize,
    /// Bytes of names, links and extended attributes together.
    pub text: usize,
    /// Bytes that it is, not compressed.
    pub length: u64,
}

/// What no image in use comes near to; what a layer takes in memory is bounded by it to some gigabyte.
pub const LIMITS: Limits = Limits {
    files: MAX_FILES,
    depth: 256,
    text: 256 << 20,
    length: 1 << 40,
};

/// Why a layer is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not an archive, or broken.
    #[error(transparent)]
    Archive(#[from] tar::Error),
    /// It cannot be read, or is compressed badly.
    #[error("a layer cannot be read")]
    Read(#[source] io::Error),
    /// A member cannot be what it says.
    #[error("`{}` at byte {at} of a layer: {why}", .path.escape_ascii())]
    Member {
        /// Where its header is.
        at: u64,
        /// As it is written.
        path: Vec<u8>,
        /// What is wrong with it.
        why: Unfit,
    },
    /// A member's content cannot be kept.
    #[error("`{}` at byte {at} of a layer", .path.escape_ascii())]
    Content {
        /// Where its header is.
        at: u64,
        /// As it is written.
        path: Vec<u8>,
        /// What is wrong with it.
        #[source]
        source: blob::Error,
    },
    /// Longer than a layer may be.
    #[error("a layer of more than {0} bytes")]
    Long(u64),
    /// What is beside the content of its files cannot be kept.
    #[error("what a layer has beside files cannot be written")]
    Rest(#[source] io::Error),
}

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It does not fit to what the layer has.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No file can be called so.
    #[error("a name of more than 255 bytes, or with a NUL")]
    Name,
    /// More directories than there may be.
    #[error("more than {0} directories in each other")]
    Deep(usize),
    /// It removes nothing that has a name, or has something in it.
    #[error("not a name that a layer can remove")]
    Whiteout,
    /// A symbolic link to nothing, or longer than a path can be.
    #[error("a symbolic link of no bytes, of more than {MAX_TARGET}, or with a NUL")]
    Target,
    /// Linux has no such device.
    #[error("not the number of a device")]
    Device,
    /// Longer than a file's can be.
    #[error(transparent)]
    Xattrs(#[from] crate::tree::TooLarge),
    /// Names, links and attributes are longer than they may be.
    #[error("names and attributes of more than {0} bytes altogether")]
    Text(usize),
}

/// A layer that has been read.
#[derive(Debug)]
pub struct Layer {
    /// What it changes.
    pub changes: Changes,
    /// The SHA-256 of the archive, not compressed: what an image's configuration calls `diff_id`.
    pub digest: [u8; 32],
    /// The length of the archive, not compressed.
    pub length: u64,
}

/// Reads a layer to its end, compressed or not, puts the content of its files into a blob, and what else it consists of
/// into a rest.
///
/// # Errors
/// When it is no layer, or more than the limits let it be.
pub fn read(
    source: impl Read,
    blob: &mut Blob<impl Sink>,
    rest: &mut Rest<impl Write>,
    limits: &Limits,
) -> Result<Layer, Error> {
    let source = Decompressed::new(source).map_err(Error::Read)?;
    read_plain(source, blob, rest, limits)
}

/// The same, of a layer that is not compressed.
///
/// # Errors
/// As [`read`].
pub fn read_plain(
    source: impl Read,
    blob: &mut Blob<impl Sink>,
    rest: &mut Rest<impl Write>,
    limits: &Limits,
) -> Result<Layer, Error> {
    let mut archive = Archive::new(Digested::new(source, rest, limits.length));
    let mut reading = Reading {
        changes: Changes::new(limits.files),
        text: 0,
        limits,
    };
    let result = reading.members(&mut archive, blob);
    let mut source = archive.into_inner();
    // Its own error is clearer than what follows from it.
    source.check()?;
    result?;
    // What is behind the end is part of the digest.
    let copied = io::copy(&mut source, &mut io::sink());
    source.check()?;
    copied.map_err(Error::Read)?;
    let (digest, length) = source.finish();
    let changes = reading.changes;
    Ok(Layer {
        changes,
        digest,
        length,
    })
}

struct Reading<'a> {
    changes: Changes,
    text: usize,
    limits: &'a Limits,
}

/// What a member's path says.
enum Place {
    /// A file's.
    File(Path),
    /// A name to be removed from a directory.
    Whiteout(Path, Name),
    /// A directory to be emptied.
    Opaque(Path),
    /// What AUFS keeps for itself.
    Other,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

impl Reading<'_> {
    fn members<R: Read, W: Write>(
        &mut self,
        archive: &mut Archive<Digested<'_, R, W>>,
        blob: &mut Blob<impl Sink>,
    ) -> Result<(), Error> {
        while let Some(member) = archive.next_member()? {
            let (at, path) = (member.at, member.path.clone());
            let fit = |why| Error::Member {
                at,
                path: path.clone(),
                why,
            };
            match self.place(&path).map_err(fit)? {
                Place::Other => {}
                Place::Whiteout(directory, name) => {
                    let removed = self.changes.remove(&directory, &name);
                    removed.map_err(|why| fit(why.into()))?;
                }
                Place::Opaque(directory) => {
                    let hidden = self.changes.hide(&directory);
                    hidden.map_err(|why| fit(why.into()))?;
                }
                Place::File(place) => match &member.kind {
                    tar::Kind::File { size, stretches } => {
                        let attributes = self.attributes(&member).map_err(fit)?;
                        archive.source_mut().begin_content();
                        let content = blob.add(*size, stretches, archive);
                        let content = content.map_err(|source| {
                            let path = path.clone();
                            Error::Content { at, path, source }
                        })?;
                        let noted = archive.source_mut().end_content(&content, stretches);
                        noted.map_err(Error::Rest)?;
                        let kind = Kind::File(content);
                        let added = self.changes.add(&place, Node { attributes, kind });
                        added.map_err(|why| fit(why.into()))?;
                    }
                    _ => self.add(&place, &member).map_err(fit)?,
                },
            }
        }
        Ok(())
    }

    /// Adds a member without content.
    fn add(&mut self, place: &[Name], member: &Member) -> Result<(), Unfit> {
        let device = |major: i64, minor: i64| {
            let number = |it: i64| u32::try_from(it).ok();
            let device = Device::new(number(major)?, number(minor)?);
            device.ok_or(()).ok()
        };
        let kind = match &member.kind {
            tar::Kind::Link(target) => {
                let target = self.path(target)?;
                return Ok(self.changes.link(place, &target)?);
            }
            tar::Kind::Symlink(target) => {
                let fits = (1..=MAX_TARGET).contains(&target.len()) && !target.contains(&0);
                if !fits {
                    return Err(Unfit::Target);
                }
                self.text(target.len())?;
                Kind::Symlink(target.as_slice().into())
            }
            tar::Kind::Character(major, minor) => {
                Kind::Character(device(*major, *minor).ok_or(Unfit::Device)?)
            }
            tar::Kind::Block(major, minor) => {
                Kind::Block(device(*major, *minor).ok_or(Unfit::Device)?)
            }
            tar::Kind::Fifo => Kind::Fifo,
            tar::Kind::Directory | tar::Kind::File { .. } => Kind::Directory(BTreeMap::new()),
        };
        let attributes = self.attributes(member)?;
        Ok(self.changes.add(place, Node { attributes, kind })?)
    }

    /// Extended attributes that EROFS does not have are left out, as by all who unpack to file systems that do not have
    /// them.
    fn attributes(&mut self, member: &Member) -> Result<Attributes, Unfit> {
        let mut xattrs = Xattrs::default();
        for (name, value) in &member.xattrs {
            if let Some(known) = XattrName::for_guests(name) {
                self.text(name.len() + value.len())?;
                xattrs.insert(known, value)?;
            }
        }
        // Linux has no other for them, whatever archives say.
        let mode = match member.kind {
            tar::Kind::Symlink(_) => 0o777,
            _ => member.mode,
        };
        Ok(Attributes {
            mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs,
        })
    }

    /// What a path means, whatever kind its member is.
    fn place(&mut self, path: &[u8]) -> Result<Place, Unfit> {
        let mut path = self.path(path)?;
        let is_aufs = |name: &Name| name.as_bytes().starts_with(AUFS);
        let Some(last) = path.pop() else {
            return Ok(Place::File(path));
        };
        if last.as_bytes() == OPAQUE && !path.iter().any(is_aufs) {
            return match path
                .iter()
                .any(|name| name.as_bytes().starts_with(WHITEOUT))
            {
                true => Err(Unfit::Whiteout),
                false => Ok(Place::Opaque(path)),
            };
        }
        if is_aufs(&last) || path.iter().any(is_aufs) {
            return Ok(Place::Other);
        }
        if path
            .iter()
            .any(|name| name.as_bytes().starts_with(WHITEOUT))
        {
            return Err(Unfit::Whiteout);
        }
        match last.as_bytes().strip_prefix(WHITEOUT) {
            Some(name) => {
                let name = Name::new(name).ok_or(Unfit::Whiteout)?;
                Ok(Place::Whiteout(path, name))
            }
            None => {
                path.push(last);
                Ok(Place::File(path))
            }
        }
    }

    /// The names of a path from the root on, which `..` does not leave.
    fn path(&mut self, path: &[u8]) -> Result<Path, Unfit> {
        let mut names = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                _ => names.push(Name::new(part).ok_or(Unfit::Name)?),
            }
            if names.len() > self.limits.depth {
                return Err(Unfit::Deep(self.limits.depth));
            }
        }
        self.text(path.len())?;
        Ok(names)
    }

    fn text(&mut self, length: usize) -> Result<(), Unfit> {
        self.text += length;
        match self.text > self.limits.text {
            true => Err(Unfit::Text(self.limits.text)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
