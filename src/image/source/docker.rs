//! What `docker save` writes: a list of images, each with its configuration's and its layers' files.

use super::{Error, From, Loaded, MAX_IMAGES};
use crate::config;
use crate::reference::Reference;
use serde::Deserialize;

const LIST: &str = "manifest.json";
/// The longest list.
const MAX_LIST: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub fn load(from: &From<'_>) -> Result<Vec<Loaded>, Error> {
    let list = from.bundle.read(LIST, MAX_LIST)?;
    let list: Vec<Entry> =
        serde_json::from_slice(&list).map_err(|source| Error::List { name: LIST, source })?;
    if list.len() > MAX_IMAGES {
        return Err(Error::ManyImages(MAX_IMAGES));
    }
    let mut images = Vec::new();
    for entry in joined(list) {
        let json = from.bundle.read(&entry.config, config::MAX_LENGTH as u64)?;
        let tags = entry.repo_tags.unwrap_or_default();
        let names = tags.iter().filter_map(|tag| match Reference::parse(tag) {
            Ok(name) => Some(name),
            Err(error) => {
                log::warn!("{error}");
                None
            }
        });
        let names: Vec<_> = names.collect();
        images.push(from.image(&json, &entry.layers, names)?);
    }
    match images.is_empty() {
        true => Err(Error::NoImages),
        false => Ok(images),
    }
}

/// Images that are listed more than once are so once, with all their names.
fn joined(list: Vec<Entry>) -> Vec<Entry> {
    let mut once: Vec<Entry> = Vec::new();
    for entry in list {
        let same = |it: &&mut Entry| it.config == entry.config && it.layers == entry.layers;
        match once.iter_mut().find(same) {
            Some(there) => {
                let names = there.repo_tags.get_or_insert_default();
                names.extend(entry.repo_tags.into_iter().flatten());
            }
            None => once.push(entry),
        }
    }
    once
}
