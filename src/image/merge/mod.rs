//! From the changes of layers, the lowest first, to one tree: what a container of the image begins with.

use crate::layer::{Changes, MAX_FILES, Path};
use crate::tree::{Blocked, Kind, Name, Node, NodeId, Tree};
use std::collections::BTreeMap;

/// Why layers make no tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A hard link leads nowhere.
    #[error("layer {layer}: `{}` is a hard link to `{}`, {why}", text(.path), text(.target))]
    Link {
        /// Which layer has it, counted from 1.
        layer: usize,
        /// What it is called.
        path: Path,
        /// What it leads to.
        target: Path,
        /// Why it does not.
        why: NoTarget,
    },
    /// More than can be numbered.
    #[error("more layers than an image can have")]
    Layers,
    /// More than any image has.
    #[error("layers of more than {0} files and directories altogether")]
    Files(usize),
}

/// Why a hard link leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoTarget {
    /// Neither this layer nor one below has it.
    #[error("which neither this layer nor one below has")]
    Missing,
    /// Directories have one name.
    #[error("which is a directory")]
    Directory,
    /// Something is in the way.
    #[error("but the way there leads through something else: {0}")]
    Way(Blocked),
}

fn text(path: &[Name]) -> String {
    let names = path.iter().map(|name| name.as_bytes().escape_ascii());
    names.map(|name| format!("/{name}")).collect()
}

/// Puts layers on top of each other. The content of the first one is in blob 0, and so on.
///
/// # Errors
/// When a layer links to what is not below it, or there are too many.
pub fn merge<'a>(layers: impl IntoIterator<Item = &'a Changes>) -> Result<Tree, Error> {
    let mut merged = Merged::new(MAX_FILES);
    for layer in layers {
        merged.add(layer)?;
    }
    Ok(merged.into_tree())
}

/// Layers on top of each other, added one by one: only the one that is added is in memory beside the tree.
#[derive(Debug)]
pub struct Merged {
    tree: Tree,
    /// How many layers.
    count: usize,
    limit: usize,
}

impl Merged {
    /// No layer yet; files and directories of all together, also those that others have replaced, may be as many as
    /// `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            tree: Tree::new(crate::tree::Attributes::default()),
            count: 0,
            limit,
        }
    }

    /// Puts a layer on top.
    ///
    /// # Errors
    /// When it links to what is not below it, or it is too much. Part of it is in the tree then.
    pub fn add(&mut self, layer: &Changes) -> Result<(), Error> {
        if self.count == 0 {
            // Even an implied root is something.
            let root = layer.tree().node(Tree::ROOT).attributes.clone();
            self.tree.node_mut(Tree::ROOT).attributes = root;
        }
        Merging {
            tree: &mut self.tree,
            limit: self.limit,
            layer,
            number: self.count,
            blob: u16::try_from(self.count).map_err(|_| Error::Layers)?,
            nodes: BTreeMap::new(),
        }
        .apply()?;
        self.count += 1;
        Ok(())
    }

    /// The tree of all.
    pub fn into_tree(self) -> Tree {
        self.tree
    }
}

struct Merging<'a> {
    tree: &'a mut Tree,
    limit: usize,
    layer: &'a Changes,
    number: usize,
    blob: u16,
    /// The layer's files that are in the tree by now.
    nodes: BTreeMap<NodeId, NodeId>,
}

/// A hard link to a file below, by the layer's directory.
type Links = BTreeMap<NodeId, Vec<(Name, NodeId)>>;

/// Directories by their names, each with the place of the one that it is in; the root is none. Their whole paths would
/// take as much as the square of their depth.
type Ways<'a> = Vec<(Option<usize>, &'a Name)>;

fn path_to(ways: &Ways<'_>, mut directory: Option<usize>, last: &Name) -> Path {
    let mut path = vec![last.clone()];
    while let Some((around, name)) = directory.map(|it| ways[it]) {
        path.push(name.clone());
        directory = around;
    }
    path.reverse();
    path
}

impl Merging<'_> {
    fn apply(mut self) -> Result<(), Error> {
        // Before anything is taken from the layers below, for a layer may give a file another name by that.
        let links = self.links()?;
        let root = self.layer.tree().node(Tree::ROOT);
        if !self.layer.is_implied(Tree::ROOT) {
            self.tree.node_mut(Tree::ROOT).attributes = root.attributes.clone();
        }
        let mut waiting = vec![(Tree::ROOT, Tree::ROOT)];
        while let Some((upper, lower)) = waiting.pop() {
            self.remove(upper, lower);
            for (name, child) in self.layer.tree().children(upper).into_iter().flatten() {
                let placed = self.place(lower, name, *child)?;
                if self.layer.tree().children(*child).is_some() {
                    waiting.push((*child, placed));
                }
            }
            for (name, target) in links.get(&upper).into_iter().flatten() {
                self.name(lower, name, *target);
            }
        }
        Ok(())
    }

    /// What the layer's hard links to files below lead to.
    fn links(&self) -> Result<Links, Error> {
        let mut found = Links::new();
        let mut ways = Ways::new();
        let mut waiting = vec![(Tree::ROOT, None)];
        while let Some((directory, way)) = waiting.pop() {
            for (name, target) in self.layer.links(directory) {
                let id = self.target(target).map_err(|why| Error::Link {
                    layer: self.number + 1,
                    path: path_to(&ways, way, name),
                    target: target.clone(),
                    why,
                })?;
                found.entry(directory).or_default().push((name.clone(), id));
            }
            for (name, child) in self.layer.tree().children(directory).into_iter().flatten() {
                if self.layer.tree().children(*child).is_some() {
                    ways.push((way, name));
                    waiting.push((*child, Some(ways.len() - 1)));
                }
            }
        }
        Ok(found)
    }

    fn target(&self, path: &[Name]) -> Result<NodeId, NoTarget> {
        let (last, before) = path.split_last().ok_or(NoTarget::Directory)?;
        let way = self.tree.reach(before).map_err(NoTarget::Way)?;
        let children = self.tree.children(way.directory);
        let there = children.and_then(|all| all.get(last).copied());
        match there.filter(|_| way.missing.is_empty()) {
            None => Err(NoTarget::Missing),
            Some(id) if self.tree.children(id).is_some() => Err(NoTarget::Directory),
            Some(id) => Ok(id),
        }
    }

    /// Takes from a directory below what the layer does not want.
    fn remove(&mut self, upper: NodeId, lower: NodeId) {
        if let Some(children) = self.tree.children_mut(lower) {
            if self.layer.is_opaque(upper) {
                children.clear();
            }
            for name in self.layer.removed(upper) {
                children.remove(name);
            }
        }
    }

    /// Puts a file of the layer into a directory; a directory is joined with one that is there.
    fn place(&mut self, lower: NodeId, name: &Name, child: NodeId) -> Result<NodeId, Error> {
        let node = self.layer.tree().node(child);
        if let Kind::Directory(_) = node.kind {
            let there = self
                .tree
                .children(lower)
                .and_then(|all| all.get(name).copied());
            if let Some(there) = there.filter(|there| self.tree.children(*there).is_some()) {
                if !self.layer.is_implied(child) {
                    self.tree.node_mut(there).attributes = node.attributes.clone();
                }
                return Ok(there);
            }
        }
        let placed = match self.nodes.get(&child) {
            Some(placed) => *placed,
            None => {
                let kind = match &node.kind {
                    Kind::Directory(_) => Kind::Directory(BTreeMap::new()),
                    Kind::File(content) => Kind::File(content.in_blob(self.blob)),
                    other => other.clone(),
                };
                let attributes = node.attributes.clone();
                let has_room = self.tree.len() < self.limit;
                let added = has_room.then(|| self.tree.add(Node { attributes, kind }));
                added.flatten().ok_or(Error::Files(self.limit))?
            }
        };
        self.nodes.insert(child, placed);
        self.name(lower, name, placed);
        Ok(placed)
    }

    fn name(&mut self, directory: NodeId, name: &Name, id: NodeId) {
        if let Some(children) = self.tree.children_mut(directory) {
            children.insert(name.clone(), id);
        }
    }
}

#[cfg(test)]
mod tests;
