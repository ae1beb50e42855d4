//! From the changes of layers, the lowest first, to one tree: what a container of the image begins with.

use crate::layer::{Changes, Path};
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
    #[error("more layers or files than an image can have")]
    Many,
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
    let mut tree = Tree::new(crate::tree::Attributes::default());
    for (number, layer) in layers.into_iter().enumerate() {
        if number == 0 {
            // Even an implied root is something.
            let root = layer.tree().node(Tree::ROOT).attributes.clone();
            tree.node_mut(Tree::ROOT).attributes = root;
        }
        Merging {
            tree: &mut tree,
            layer,
            number,
            blob: u16::try_from(number).map_err(|_| Error::Many)?,
            nodes: BTreeMap::new(),
        }
        .apply()?;
    }
    Ok(tree)
}

struct Merging<'a> {
    tree: &'a mut Tree,
    layer: &'a Changes,
    number: usize,
    blob: u16,
    /// The layer's files that are in the tree by now.
    nodes: BTreeMap<NodeId, NodeId>,
}

/// A hard link to a file below, by the layer's directory.
type Links = BTreeMap<NodeId, Vec<(Name, NodeId)>>;

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
        let mut waiting = vec![(Tree::ROOT, Path::new())];
        while let Some((directory, path)) = waiting.pop() {
            for (name, target) in self.layer.links(directory) {
                let path = || [&path[..], std::slice::from_ref(name)].concat();
                let id = self.target(target).map_err(|why| Error::Link {
                    layer: self.number + 1,
                    path: path(),
                    target: target.clone(),
                    why,
                })?;
                found.entry(directory).or_default().push((name.clone(), id));
            }
            for (name, child) in self.layer.tree().children(directory).into_iter().flatten() {
                if self.layer.tree().children(*child).is_some() {
                    let path = [&path[..], std::slice::from_ref(name)].concat();
                    waiting.push((*child, path));
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
                let added = self.tree.add(Node { attributes, kind });
                added.ok_or(Error::Many)?
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
