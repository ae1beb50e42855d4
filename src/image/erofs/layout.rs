//! Where everything is to be in an image, before anything is written: inodes one after the other, each with what is
//! behind it, then the blocks of directories and links whose data is not behind their inodes.

use super::chunks::Chunks;
use super::directory;
use super::format::{INODE, Layout, SLOT};
use super::{Error, MAX_METADATA, xattrs};
use crate::tree::{BLOCK, Kind, Name, Node, NodeId, Tree};
use std::collections::BTreeMap;

/// Inode 0 is not used: readdir(3) of some C libraries takes it for a removed entry.
const FIRST: u64 = INODE as u64;

/// A node's place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Its inode's number; 0 where the node cannot be reached.
    pub inode: u64,
    /// How many names it has, as stat(2) tells.
    pub links: u32,
    /// Of a directory's data.
    pub size: u64,
    /// The first of its blocks among those behind the inodes.
    pub block: u32,
}

/// The places of a tree's nodes.
#[derive(Debug)]
pub struct Places {
    all: Vec<Place>,
    /// In the order of their inodes, with the directory that each was found in.
    pub order: Vec<(NodeId, NodeId)>,
    /// What the inodes take, in blocks.
    pub inode_blocks: u32,
    /// What is behind them, in blocks.
    pub data_blocks: u32,
}

/// Where the data of an inode is: how much of it is in blocks, and how much behind the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// What the inode says of it.
    pub layout: Layout,
    /// In blocks behind all inodes; the last may be used in part.
    pub blocks: u64,
    /// Behind the inode and its extended attributes, in bytes.
    pub inline: u64,
}

impl Split {
    /// Data that is part of the metadata: what does not fill a block is behind the inode, if all of that fits into one
    /// block, for the kernel reads no such tail from two.
    pub fn of_data(size: u64, xattrs: u64) -> Self {
        let tail = size % BLOCK;
        match tail > 0 && INODE as u64 + xattrs + tail <= BLOCK {
            true => Self {
                layout: Layout::Inline,
                blocks: size / BLOCK,
                inline: tail,
            },
            false => Self {
                layout: Layout::Plain,
                blocks: size.div_ceil(BLOCK),
                inline: 0,
            },
        }
    }

    /// That of a node; a directory's data has `size` bytes.
    pub fn of(node: &Node, size: u64, xattrs: u64) -> Self {
        let nothing = Self {
            layout: Layout::Plain,
            blocks: 0,
            inline: 0,
        };
        match &node.kind {
            Kind::Directory(_) => Self::of_data(size, xattrs),
            Kind::Symlink(target) => Self::of_data(target.len() as u64, xattrs),
            Kind::File(content) if content.size() > 0 && content.whole().is_none() => Self {
                layout: Layout::Chunks,
                blocks: 0,
                inline: Chunks::of(content).length(),
            },
            _ => nothing,
        }
    }
}

/// The names of a directory with `.` and `..`, in the order of their bytes.
pub fn names(
    children: &BTreeMap<Name, NodeId>,
    this: NodeId,
    parent: NodeId,
) -> Vec<(&[u8], NodeId)> {
    let named = children.iter().map(|(name, id)| (name.as_bytes(), *id));
    let dots: [(&[u8], NodeId); 2] = [(b".", this), (b"..", parent)];
    let mut all: Vec<_> = dots.into_iter().chain(named).collect();
    all.sort_unstable();
    all
}

impl Places {
    /// Finds a place for all that can be reached.
    pub fn of(tree: &Tree) -> Result<Self, Error> {
        let mut places = Self {
            all: vec![Place::default(); tree.len()],
            order: Vec::new(),
            inode_blocks: 0,
            data_blocks: 0,
        };
        let (mut end, mut blocks) = (FIRST, 0);
        let mut waiting = vec![(Tree::ROOT, Tree::ROOT)];
        while let Some((id, parent)) = waiting.pop() {
            let place = &mut places.all[id.index()];
            place.links += 1;
            if place.inode != 0 {
                continue;
            }
            let node = tree.node(id);
            if let Kind::Directory(children) = &node.kind {
                let names = names(children, id, parent);
                place.size = directory::length(names.iter().map(|(name, _)| *name));
                let is_directory = |id: &&NodeId| tree.children(**id).is_some();
                // Its own `.`, and the `..` of each directory in it.
                place.links += 1 + children.values().filter(is_directory).count() as u32;
                // The last is taken first.
                waiting.extend(children.values().rev().map(|child| (*child, id)));
            }
            let xattrs = xattrs::encode(&node.attributes.xattrs).len() as u64;
            let split = Split::of(node, place.size, xattrs);
            let length = INODE as u64 + xattrs + split.inline;
            let begin = match split.layout {
                Layout::Inline if end % BLOCK + length > BLOCK => end.next_multiple_of(BLOCK),
                _ => end,
            };
            place.inode = begin / SLOT;
            place.block = u32::try_from(blocks).map_err(|_| Error::Metadata)?;
            end = (begin + length).next_multiple_of(SLOT);
            blocks += split.blocks;
            if end + blocks * BLOCK > MAX_METADATA {
                return Err(Error::Metadata);
            }
            places.order.push((id, parent));
        }
        places.inode_blocks = end.div_ceil(BLOCK) as u32;
        places.data_blocks = blocks as u32;
        Ok(places)
    }

    /// Where a node is.
    pub fn at(&self, id: NodeId) -> Place {
        self.all[id.index()]
    }
}
