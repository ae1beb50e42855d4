//! A tree of files in memory: names, attributes, and where the content lies. The content itself is in blobs.

mod attributes;
mod content;
mod name;
mod reach;
mod xattrs;

pub use attributes::{Attributes, Time};
pub use content::{BLOCK, Content, Run};
pub use name::{MAX_NAME, Name};
pub use reach::{Blocked, Reached};
pub use xattrs::{TooLarge, XattrName, Xattrs};

use std::collections::BTreeMap;

/// Which node of its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The node that was added as this one, counted from the root, which is 0.
    pub fn at(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    /// Its place, for tables beside the tree.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file of any kind. Two names of one node are hard links.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What all kinds have.
    pub attributes: Attributes,
    /// The rest.
    pub kind: Kind,
}

/// What a node is, with what only this kind has.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A directory, with what it contains.
    Directory(BTreeMap<Name, NodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link: between 1 and [`MAX_TARGET`] bytes, none of them NUL.
    Symlink(Box<[u8]>),
    /// A character device.
    Character(Device),
    /// A block device.
    Block(Device),
    /// A named pipe.
    Fifo,
    /// A socket that nobody listens at.
    Socket,
}

/// What a symbolic link can hold: Linux reads no more (PATH_MAX less the NUL).
pub const MAX_TARGET: usize = 4095;

/// A device's number, as Linux has it: 12 and 20 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    major: u32,
    minor: u32,
}

impl Device {
    /// `None` where Linux has no such number.
    pub fn new(major: u32, minor: u32) -> Option<Self> {
        (major < 1 << 12 && minor < 1 << 20).then_some(Self { major, minor })
    }

    /// The number of its driver.
    pub fn major(self) -> u32 {
        self.major
    }

    /// The number that its driver gives it.
    pub fn minor(self) -> u32 {
        self.minor
    }
}

/// Nodes, of which those count that can be reached from the root. A directory is in one place only.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Where all begins.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree of nothing but a root directory.
    pub fn new(root: Attributes) -> Self {
        let kind = Kind::Directory(BTreeMap::new());
        let nodes = vec![Node {
            attributes: root,
            kind,
        }];
        Self { nodes }
    }

    /// How many nodes there are, those that cannot be reached among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Adds a node that has no name yet; `None` after 2³² of them.
    pub fn add(&mut self, node: Node) -> Option<NodeId> {
        let id = u32::try_from(self.nodes.len()).ok()?;
        self.nodes.push(node);
        Some(NodeId(id))
    }

    /// What a node is.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// To change it.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// What a directory contains; `None` where it is something else.
    pub fn children(&self, directory: NodeId) -> Option<&BTreeMap<Name, NodeId>> {
        match &self.node(directory).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// To change it.
    pub fn children_mut(&mut self, directory: NodeId) -> Option<&mut BTreeMap<Name, NodeId>> {
        match &mut self.node_mut(directory).kind {
            Kind::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// What is at a path from the root, without following symbolic links.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a [u8]>) -> Option<NodeId> {
        path.into_iter()
            .try_fold(Self::ROOT, |at, name| self.children(at)?.get(name).copied())
    }
}
