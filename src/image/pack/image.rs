//! A directory as an image.

use super::walk::{Error, Found, Unfit, open, read, stretches, walk, xattrs};
use crate::blob::Blob;
use crate::erofs;
use crate::tree::{Attributes, BLOCK, Content, Device, Kind, MAX_TARGET, Name, Node, NodeId};
use crate::tree::{Tree, XattrName, Xattrs};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is read and written at a time.
const PIECE: usize = 256 << 10;

/// Whose the files in an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Root's, all of them.
    Root,
    /// Those whose they are on the host, by number.
    Kept,
}

/// Packs a directory into an image that a guest mounts: one EROFS, metadata and content. `told` is asked to note how many
/// bytes of the content are written, and how many there are.
///
/// # Errors
/// When something in it cannot be read, does not fit, or changes meanwhile; or the image cannot be written.
pub fn image(
    directory: &Path,
    owners: Owners,
    out: &File,
    mut told: impl FnMut(u64, u64),
) -> Result<(), Error> {
    let mut plan = Plan::new(owners);
    walk(directory, |found, parent| plan.add(found, parent))?;
    let (blocks, tree) = (plan.blob.blocks(), &plan.tree);
    let mut out = BufWriter::with_capacity(PIECE, out);
    erofs::Image::new(tree, &[blocks], b"")?.write(&mut out)?;
    let mut copying = Copying {
        out,
        piece: vec![0; PIECE],
        written: 0,
        all: u64::from(blocks) * BLOCK,
    };
    for (path, id) in &plan.files {
        if let Kind::File(content) = &tree.node(*id).kind {
            copying.file(path, content, &mut told)?;
        }
    }
    Ok(copying.out.flush()?)
}

/// What is to be written.
struct Plan {
    owners: Owners,
    tree: Tree,
    /// Where content is going to be.
    blob: Blob<io::Sink>,
    /// Those with content, in its order.
    files: Vec<(PathBuf, NodeId)>,
    /// Files with several names, by device and inode.
    links: BTreeMap<(u64, u64), NodeId>,
}

impl Plan {
    fn new(owners: Owners) -> Self {
        Self {
            owners,
            tree: Tree::new(Attributes::default()),
            blob: Blob::new(io::sink(), 0, u32::MAX),
            files: Vec::new(),
            links: BTreeMap::new(),
        }
    }

    fn add(&mut self, found: &Found<'_>, parent: Option<NodeId>) -> Result<NodeId, Error> {
        let path = found.path;
        let unfit = |why| Error::Unfit {
            path: path.into(),
            why,
        };
        let kind = found.metadata.file_type();
        let Some(parent) = parent else {
            self.tree.node_mut(Tree::ROOT).attributes = self.attributes(found)?;
            return Ok(Tree::ROOT);
        };
        if kind.is_socket() {
            return Ok(parent);
        }
        let file = (found.metadata.dev(), found.metadata.ino());
        let has_names = !kind.is_dir() && found.metadata.nlink() > 1;
        let known = self.links.get(&file).filter(|_| has_names).copied();
        let id = match known {
            Some(id) => id,
            None => self.node(found)?,
        };
        if has_names {
            self.links.insert(file, id);
        }
        let name = found.inside.rsplit(|byte| *byte == b'/').next();
        let name = name.and_then(Name::new);
        let name = name.ok_or_else(|| unfit(Unfit::Odd))?;
        if let Some(children) = self.tree.children_mut(parent) {
            children.insert(name, id);
        }
        Ok(id)
    }

    fn node(&mut self, found: &Found<'_>) -> Result<NodeId, Error> {
        let (path, metadata) = (found.path, found.metadata);
        let unfit = |why| Error::Unfit {
            path: path.into(),
            why,
        };
        let attributes = self.attributes(found)?;
        let kind = metadata.file_type();
        let device = || {
            let number = metadata.rdev();
            let device = Device::new(rustix::fs::major(number), rustix::fs::minor(number));
            device.ok_or_else(|| unfit(Unfit::Odd))
        };
        let kind = if kind.is_dir() {
            Kind::Directory(BTreeMap::new())
        } else if kind.is_file() {
            Kind::File(self.content(path, metadata.size())?)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(Error::read(path))?;
            let target = target.into_os_string().into_vec();
            if !(1..=MAX_TARGET).contains(&target.len()) {
                return Err(unfit(Unfit::Odd));
            }
            Kind::Symlink(target.into())
        } else if kind.is_char_device() {
            Kind::Character(device()?)
        } else if kind.is_block_device() {
            Kind::Block(device()?)
        } else {
            Kind::Fifo
        };
        let has_content = matches!(&kind, Kind::File(content) if !content.runs().is_empty());
        let id = self.tree.add(Node { attributes, kind });
        let id = id.ok_or_else(|| unfit(Unfit::Many))?;
        if has_content {
            self.files.push((path.into(), id));
        }
        Ok(id)
    }

    fn content(&mut self, path: &Path, size: u64) -> Result<Content, Error> {
        let stretches = match size {
            0 => Vec::new(),
            _ => {
                let file = open(path).map_err(Error::read(path))?;
                stretches(&file, size).map_err(Error::read(path))?
            }
        };
        let content = self.blob.reserve(size, &stretches);
        content.map_err(|why| Error::Unfit {
            path: path.into(),
            why: why.into(),
        })
    }

    fn attributes(&self, found: &Found<'_>) -> Result<Attributes, Error> {
        let path = found.path;
        let mut xattrs_kept = Xattrs::default();
        for (name, value) in xattrs(found).map_err(Error::read(path))? {
            if let Some(name) = XattrName::for_guests(&name) {
                let inserted = xattrs_kept.insert(name, &value);
                inserted.map_err(|why| Error::Unfit {
                    path: path.into(),
                    why: why.into(),
                })?;
            }
        }
        let (uid, gid) = match self.owners {
            Owners::Root => (0, 0),
            Owners::Kept => (found.metadata.uid(), found.metadata.gid()),
        };
        Ok(Attributes {
            mode: (found.metadata.mode() & 0o7777) as u16,
            uid,
            gid,
            xattrs: xattrs_kept,
            ..Attributes::default()
        })
    }
}

/// Content on its way.
struct Copying<W> {
    out: W,
    piece: Vec<u8>,
    written: u64,
    all: u64,
}

impl<W: Write> Copying<W> {
    fn file(
        &mut self,
        path: &Path,
        content: &Content,
        told: &mut impl FnMut(u64, u64),
    ) -> Result<(), Error> {
        let file = open(path).map_err(Error::read(path))?;
        let size = file.metadata().map_err(Error::read(path))?.size();
        if size != content.size() {
            return Err(Error::Changed(path.into()));
        }
        for run in content.runs() {
            let (at, whole) = (u64::from(run.at) * BLOCK, run.end() * BLOCK);
            let end = whole.min(size);
            read((&file, path), at..end, &mut self.piece, |bytes| {
                self.out.write_all(bytes)?;
                self.written += bytes.len() as u64;
                told(self.written, self.all);
                Ok(())
            })?;
            let rest = (whole - end) as usize;
            self.out.write_all(&[0; BLOCK as usize][..rest])?;
            self.written += rest as u64;
        }
        Ok(())
    }
}
