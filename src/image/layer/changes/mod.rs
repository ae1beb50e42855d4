//! What one layer changes: files that it has, and names that it takes from the layers below.

mod stored;

use crate::tree::{Attributes, Blocked, Kind, Name, Node, NodeId, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// Names from the root on.
pub type Path = Vec<Name>;

/// The most files that a layer has, and an image: what a tree of them takes in memory is bounded by it to some hundred
/// megabytes.
pub const MAX_FILES: usize = 1_000_000;

/// Why something does not fit into a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The way there is blocked by what the same layer has.
    #[error("the way to it leads through something else: {0}")]
    Way(#[from] Blocked),
    /// The root is always a directory.
    #[error("the root is not a directory")]
    Root,
    /// Directories have one name.
    #[error("a hard link to a directory")]
    LinkToDirectory,
    /// More files than there may be.
    #[error("more than {0} files")]
    Many(usize),
}

/// One layer, read and in order. Its own files are a tree, whose content is in blob 0. Directories in it that the layer
/// has no entry for are *implied*: they take what the layers below say of them.
#[derive(Clone, Debug)]
pub struct Changes {
    tree: Tree,
    implied: BTreeSet<NodeId>,
    opaque: BTreeSet<NodeId>,
    removed: BTreeMap<NodeId, BTreeSet<Name>>,
    links: BTreeMap<NodeId, BTreeMap<Name, Path>>,
    /// Nodes, names that are removed or links, and those of the paths that links lead to.
    count: usize,
    limit: usize,
}

/// What a directory is that no layer has an entry for.
const IMPLIED: u16 = 0o755;

fn implied() -> Attributes {
    Attributes {
        mode: IMPLIED,
        ..Attributes::default()
    }
}

impl Changes {
    /// A layer without anything, which may have as many files as `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            tree: Tree::new(implied()),
            implied: BTreeSet::from([Tree::ROOT]),
            opaque: BTreeSet::new(),
            removed: BTreeMap::new(),
            links: BTreeMap::new(),
            count: 1,
            limit,
        }
    }

    /// The files that the layer has.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether there is no entry for a directory.
    pub fn is_implied(&self, directory: NodeId) -> bool {
        self.implied.contains(&directory)
    }

    /// Whether nothing of the layers below is in a directory.
    pub fn is_opaque(&self, directory: NodeId) -> bool {
        self.opaque.contains(&directory)
    }

    /// The names that are taken from the layers below, in a directory; the layer may have files of the same names.
    pub fn removed(&self, directory: NodeId) -> impl Iterator<Item = &Name> {
        self.removed.get(&directory).into_iter().flatten()
    }

    /// Names in a directory for files of the layers below.
    pub fn links(&self, directory: NodeId) -> impl Iterator<Item = (&Name, &Path)> {
        self.links.get(&directory).into_iter().flatten()
    }

    /// Adds a file, in the place of what the layer has there; a directory keeps what is in it.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn add(&mut self, path: &[Name], node: Node) -> Result<(), Refused> {
        let is_directory = matches!(node.kind, Kind::Directory(_));
        let Some((name, parents)) = path.split_last() else {
            return self.add_directory(Tree::ROOT, node);
        };
        let parent = self.directory(parents)?;
        let there = self.child(parent, name);
        match there {
            Some(there) if is_directory && self.tree.children(there).is_some() => {
                self.add_directory(there, node)
            }
            _ => {
                let id = self.node(node)?;
                self.name(parent, name, id);
                Ok(())
            }
        }
    }

    /// Says what a directory is that is already there.
    fn add_directory(&mut self, there: NodeId, node: Node) -> Result<(), Refused> {
        if !matches!(node.kind, Kind::Directory(_)) {
            return Err(Refused::Root);
        }
        self.tree.node_mut(there).attributes = node.attributes;
        self.implied.remove(&there);
        Ok(())
    }

    /// Adds another name for a file: for one of this layer, if it has it by now, otherwise for one below. Both paths are
    /// not empty.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn link(&mut self, path: &[Name], target: &[Name]) -> Result<(), Refused> {
        let Some((name, parents)) = path.split_last() else {
            return Err(Refused::Root);
        };
        let Some((last, before)) = target.split_last() else {
            return Err(Refused::LinkToDirectory);
        };
        let way = self.tree.reach(before);
        let place = way.ok().filter(|way| way.missing.is_empty());
        let directory = place.map(|way| way.directory);
        let own = directory.and_then(|directory| self.child(directory, last));
        if own.is_some_and(|own| self.tree.children(own).is_some()) {
            return Err(Refused::LinkToDirectory);
        }
        // The target may itself be a name for a file below.
        let known = directory.and_then(|at| self.links.get(&at)?.get(last).cloned());
        let parent = self.directory(parents)?;
        if let Some(own) = own {
            self.name(parent, name, own);
        } else {
            let target = known.unwrap_or_else(|| target.to_vec());
            self.count(1 + target.len())?;
            self.unname(parent, name);
            self.links
                .entry(parent)
                .or_default()
                .insert(name.clone(), target);
        }
        Ok(())
    }

    /// Takes a name from the layers below.
    ///
    /// # Errors
    /// When the way there is blocked.
    pub fn remove(&mut self, directory: &[Name], name: &Name) -> Result<(), Refused> {
        let directory = self.directory(directory)?;
        self.count(1)?;
        self.removed
            .entry(directory)
            .or_default()
            .insert(name.clone());
        Ok(())
    }

    /// Takes all that the layers below have in a directory.
    ///
    /// # Errors
    /// When the way there is blocked.
    pub fn hide(&mut self, directory: &[Name]) -> Result<(), Refused> {
        let directory = self.directory(directory)?;
        self.opaque.insert(directory);
        Ok(())
    }

    /// The directory at a path, and those on the way, made where there is none.
    fn directory(&mut self, path: &[Name]) -> Result<NodeId, Refused> {
        let way = self.tree.reach(path)?;
        let mut at = way.directory;
        for name in way.missing {
            let attributes = implied();
            let kind = Kind::Directory(BTreeMap::new());
            let id = self.node(Node { attributes, kind })?;
            self.implied.insert(id);
            self.name(at, &name, id);
            at = id;
        }
        Ok(at)
    }

    fn child(&self, directory: NodeId, name: &Name) -> Option<NodeId> {
        self.tree.children(directory)?.get(name).copied()
    }

    fn name(&mut self, directory: NodeId, name: &Name, id: NodeId) {
        self.unname(directory, name);
        if let Some(children) = self.tree.children_mut(directory) {
            children.insert(name.clone(), id);
        }
    }

    fn unname(&mut self, directory: NodeId, name: &Name) {
        if let Some(links) = self.links.get_mut(&directory) {
            links.remove(name);
        }
        if let Some(children) = self.tree.children_mut(directory) {
            children.remove(name);
        }
    }

    fn node(&mut self, node: Node) -> Result<NodeId, Refused> {
        self.count(1)?;
        self.tree.add(node).ok_or(Refused::Many(self.limit))
    }

    fn count(&mut self, more: usize) -> Result<(), Refused> {
        self.count = self.count.saturating_add(more);
        match self.count > self.limit {
            true => Err(Refused::Many(self.limit)),
            false => Ok(()),
        }
    }
}
