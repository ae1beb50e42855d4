//! Writing EROFS: a read-only file system of 4 KiB blocks, not compressed, whose metadata comes first and whose files'
//! content lies in blobs behind it.
//!
//! The kernel takes a device's blocks by their numbers, whoever wrote them. So the content of an image's layers is
//! written once, as blobs, and an image is its own metadata with these blobs behind: as one file, or as one disk of
//! ranges of several files. There is no table of devices: kernels before 6.4 mount an image that has one only when each
//! device is named, and a disk of ranges is one device.
//!
//! Files without holes are "flat", those with holes have a map of chunks; directories and symbolic links end behind
//! their inodes, as far as that fits. The same tree and blobs give the same bytes.
//!
//! The form is that of Linux (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h); what is used of it, Linux 5.15 and
//! later mount.

mod chunks;
mod directory;
mod format;
mod layout;
mod xattrs;

use crate::digest::{Digest, Digesting};
use crate::tree::{BLOCK, Content, Kind, Node, NodeId, Tree};
use chunks::Chunks;
use directory::Entry;
use format::{Inode, Layout, Superblock};
use layout::{Places, Split};
use std::io::{self, Write};

/// The most metadata that an image has, in bytes: a gigabyte is that of several million files.
pub const MAX_METADATA: u64 = 1 << 30;

/// Why an image is not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tree is too large.
    #[error("an image with more than {MAX_METADATA} bytes of metadata")]
    Metadata,
    /// All blobs together are too large.
    #[error("an image of 16 TiB or more")]
    Blobs,
    /// A file is in a blob that was not named, or behind its end.
    #[error("content at block {block} of blob {blob}, which has no such block")]
    NoSuchBlock {
        /// Its number.
        blob: u16,
        /// In blocks.
        block: u32,
    },
    /// It cannot be written.
    #[error("an image cannot be written")]
    Write(#[from] io::Error),
}

/// The metadata of a tree, ready to be written.
#[derive(Debug)]
pub struct Image<'a> {
    tree: &'a Tree,
    places: Places,
    /// The blobs' first blocks, and behind the last one.
    blobs: Vec<u32>,
    identity: &'a [u8],
}

impl<'a> Image<'a> {
    /// Plans the image of a tree before blobs of these lengths, in blocks. `identity` is anything that tells the blobs
    /// from others, such as their digests; the image's UUID is made from it and the metadata.
    ///
    /// # Errors
    /// When it would be too large, or a file is not in the blobs.
    pub fn new(tree: &'a Tree, blobs: &[u32], identity: &'a [u8]) -> Result<Self, Error> {
        let places = Places::of(tree)?;
        let mut image = Self {
            tree,
            places,
            blobs: Vec::new(),
            identity,
        };
        let mut at = image.blocks();
        image.blobs.push(at);
        for blob in blobs {
            at = at.checked_add(*blob).ok_or(Error::Blobs)?;
            image.blobs.push(at);
        }
        for (id, _) in &image.places.order {
            if let Kind::File(content) = &tree.node(*id).kind {
                image.check(content)?;
            }
        }
        Ok(image)
    }

    /// The length of the metadata, the first block among it; the first blob begins behind.
    pub fn blocks(&self) -> u32 {
        1 + self.places.inode_blocks + self.places.data_blocks
    }

    /// Writes the metadata. The blobs are to follow it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut digesting = Digesting::default();
        digesting.write_all(self.identity)?;
        self.write_metadata(&mut digesting)?;
        let superblock = Superblock {
            // It is the first one.
            root: self.places.at(Tree::ROOT).inode as u16,
            inodes: self.places.order.len() as u64,
            blocks: self.blobs.last().copied().unwrap_or_default(),
            metadata: 1,
            uuid: uuid(&digesting.digest()),
        };
        out.write_all(&*superblock.encode())?;
        self.write_metadata(out)
    }

    /// Whether all of a file is in blobs that there are.
    fn check(&self, content: &Content) -> Result<(), Error> {
        for run in content.runs() {
            let bounds = self.blobs.get(usize::from(run.blob)..).unwrap_or_default();
            let fits = match bounds {
                [begin, end, ..] => {
                    u64::from(run.block) + u64::from(run.blocks) <= u64::from(end - begin)
                }
                _ => false,
            };
            if !fits {
                let (blob, block) = (run.blob, run.block);
                return Err(Error::NoSuchBlock { blob, block });
            }
        }
        Ok(())
    }

    /// Where a blob's block is in the image; `check` has seen that it is there.
    fn address(&self, blob: u16, block: u32) -> u32 {
        self.blobs[usize::from(blob)] + block
    }

    fn write_metadata(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut out = Padded { out, written: 0 };
        for (number, (id, parent)) in self.places.order.iter().enumerate() {
            out.pad_to(self.places.at(*id).inode * format::SLOT)?;
            self.write_inode(number as u32 + 1, *id, *parent, &mut out)?;
        }
        let inodes = u64::from(self.places.inode_blocks) * BLOCK;
        out.pad_to(inodes)?;
        for (id, parent) in &self.places.order {
            let place = self.places.at(*id);
            let split = self.split(*id);
            if split.blocks > 0 {
                let begin = inodes + u64::from(place.block) * BLOCK;
                out.pad_to(begin)?;
                let data = self.data(*id, *parent);
                out.write(&data[..data.len() - split.inline as usize])?;
                out.pad_to(begin + split.blocks * BLOCK)?;
            }
        }
        Ok(())
    }

    fn split(&self, id: NodeId) -> Split {
        let node = self.tree.node(id);
        let xattrs = xattrs::encode(&node.attributes.xattrs).len() as u64;
        Split::of(node, self.places.at(id).size, xattrs)
    }

    /// The data of a directory or a symbolic link.
    fn data(&self, id: NodeId, parent: NodeId) -> Vec<u8> {
        match &self.tree.node(id).kind {
            Kind::Symlink(target) => target.to_vec(),
            Kind::Directory(children) => {
                let names = layout::names(children, id, parent);
                let entries = names.into_iter().map(|(name, id)| Entry {
                    name,
                    inode: self.places.at(id).inode,
                    kind: directory::entry_type(&self.tree.node(id).kind),
                });
                directory::encode(&entries.collect::<Vec<_>>())
            }
            _ => Vec::new(),
        }
    }

    fn write_inode(
        &self,
        number: u32,
        id: NodeId,
        parent: NodeId,
        out: &mut Padded<'_, impl Write>,
    ) -> Result<(), Error> {
        let (node, place, split) = (self.tree.node(id), self.places.at(id), self.split(id));
        let attributes = &node.attributes;
        let xattrs = xattrs::encode(&attributes.xattrs);
        let behind = match &node.kind {
            Kind::File(content) if split.layout == Layout::Chunks => {
                let address = |blob, block| self.address(blob, block);
                Chunks::of(content).encode(content, address)
            }
            _ if split.inline > 0 => {
                let mut data = self.data(id, parent);
                data.split_off(data.len() - split.inline as usize)
            }
            _ => Vec::new(),
        };
        let inode = Inode {
            layout: split.layout,
            xattr_count: xattrs::count(xattrs.len()),
            mode: mode_of(&node.kind) | attributes.mode & 0o7777,
            size: size(node, place.size),
            place: self.place(node, place.block),
            number,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime,
            links: place.links,
        };
        out.write(&inode.encode())?;
        out.write(&xattrs)?;
        out.write(&behind)
    }

    /// What the inode says of where its data is; `block` is that of data among the metadata.
    fn place(&self, node: &Node, block: u32) -> u32 {
        match &node.kind {
            Kind::Directory(_) | Kind::Symlink(_) => 1 + self.places.inode_blocks + block,
            Kind::File(content) => match content.whole() {
                Some(run) => self.address(run.blob, run.block),
                None if content.size() == 0 => 0,
                None => Chunks::of(content).form(),
            },
            // As Linux has 32-bit numbers of devices: the minor one around the major one.
            Kind::Character(device) | Kind::Block(device) => {
                let (major, minor) = (device.major(), device.minor());
                (minor & 0xff) | major << 8 | (minor & !0xff) << 12
            }
            Kind::Fifo | Kind::Socket => 0,
        }
    }
}

/// The bits of a mode that tell the kind of a file.
pub(crate) fn mode_of(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::Character(_) => 0o020_000,
        Kind::Directory(_) => 0o040_000,
        Kind::Block(_) => 0o060_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}

fn size(node: &Node, directory: u64) -> u64 {
    match &node.kind {
        Kind::Directory(_) => directory,
        Kind::File(content) => content.size(),
        Kind::Symlink(target) => target.len() as u64,
        _ => 0,
    }
}

/// What is written, with zeros between.
struct Padded<'a, W> {
    out: &'a mut W,
    written: u64,
}

impl<W: Write> Padded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros up to a place that is not farther than a block.
    fn pad_to(&mut self, at: u64) -> Result<(), Error> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        self.write(&ZEROS[..(at - self.written) as usize])
    }
}

/// A UUID of version 8, whose bits mean what its maker likes (RFC 9562).
fn uuid(digest: &Digest) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest.0[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests;
