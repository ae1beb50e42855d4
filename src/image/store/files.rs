//! Files of an image, read where they lie in the store: nothing is mounted or unpacked.

use super::{Error, Image, Store, StoredLayer};
use crate::merge::Merged;
use crate::tree::{BLOCK, Content, Kind, Tree};
use std::io;
use std::os::unix::fs::FileExt;

/// The most files that an image has.
const MAX_FILES: usize = 4_000_000;

/// What is in an image. Its layers stay in the store as long as this value does.
#[derive(Debug)]
pub struct Files {
    tree: Tree,
    layers: Vec<StoredLayer>,
}

impl Store {
    /// What is in an image.
    ///
    /// # Errors
    /// When a layer is missing, broken, or cannot be read.
    pub fn files(&self, image: &Image) -> Result<Files, Error> {
        let mut merged = Merged::new(MAX_FILES);
        let mut layers = Vec::new();
        for diff_id in &image.config.layers {
            let layer = self.layer(diff_id)?.ok_or(Error::Incomplete {
                image: image.id,
                layer: *diff_id,
                why: "missing",
            })?;
            merged.add(&layer.changes()?)?;
            layers.push(layer);
        }
        let tree = merged.into_tree();
        Ok(Files { tree, layers })
    }
}

impl Files {
    /// All of it, where the content of files is in the layer of each blob's number.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The names in a directory, by its path from the root without a slash in front; none if there is no such directory.
    /// Symbolic links are not followed.
    pub fn names(&self, path: &str) -> Vec<Vec<u8>> {
        let found = self.tree.at(path.split('/').map(str::as_bytes));
        let children = found.and_then(|id| self.tree.children(id));
        let names = children.into_iter().flat_map(|all| all.keys());
        names.map(|name| name.as_bytes().to_vec()).collect()
    }

    /// All of a file of at most `most` bytes; nothing if it is no file, or longer. Symbolic links are not followed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let found = self.tree.at(path.split('/').map(str::as_bytes));
        match found.map(|id| &self.tree.node(id).kind) {
            Some(Kind::File(content)) if content.size() <= most => self.content(content).map(Some),
            _ => Ok(None),
        }
    }

    fn content(&self, content: &Content) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; content.size() as usize];
        for run in content.runs() {
            let at = u64::from(run.at) * BLOCK;
            let length = (u64::from(run.blocks) * BLOCK).min(content.size() - at);
            let part = &mut bytes[at as usize..(at + length) as usize];
            let Some(layer) = self.layers.get(usize::from(run.blob)) else {
                continue;
            };
            let sealed = layer.sealed();
            let from = u64::from(run.block) * BLOCK;
            let is_inside = from + length <= layer.data_length;
            let read = match is_inside {
                true => sealed.file.read_exact_at(part, from),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
            read.map_err(Error::io(&sealed.path))?;
        }
        Ok(bytes)
    }
}
