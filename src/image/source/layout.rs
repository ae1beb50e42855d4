//! An OCI layout: an index of images, whose parts are files that are called by their digests.

use super::{Error, From, Loaded, MAX_IMAGES};
use crate::Digest;
use crate::config::{self, Platform};
use crate::manifest::{self, Descriptor, Document};
use crate::reference::Reference;
use std::collections::BTreeMap;

const INDEX: &str = "index.json";
/// What containerd and docker call an image, all of it.
const NAME: &str = "io.containerd.image.name";
/// What the specification has for a name, or for a tag only.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What an image is called, if that is all of a name.
fn name(of: &Descriptor) -> Option<Reference> {
    let whole = of.annotations.get(NAME);
    let reference = of.annotations.get(REFERENCE);
    let text = whole.or(reference.filter(|text| text.contains(['/', ':'])))?;
    Reference::parse(text).ok()
}

pub fn load(from: &From<'_>) -> Result<Vec<Loaded>, Error> {
    let json = from.bundle.read(INDEX, manifest::MAX_LENGTH)?;
    let Document::Index(all) = Document::parse(&json)? else {
        return Err(Error::NoImages);
    };
    let is_named = |it: &&Descriptor| {
        let keys = [NAME, REFERENCE];
        keys.iter().any(|key| it.annotations.contains_key(*key))
    };
    let named: Vec<_> = all.iter().filter(is_named).collect();
    if named.is_empty() {
        // One image, for some platforms.
        let whole = Descriptor {
            media_type: manifest::media_type::INDEX.into(),
            digest: Digest::of(&json),
            size: json.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
            urls: Vec::new(),
        };
        return Ok(vec![image(from, &whole, Some(&json))?]);
    }
    if named.len() > MAX_IMAGES {
        return Err(Error::ManyImages(MAX_IMAGES));
    }
    named.into_iter().map(|it| image(from, it, None)).collect()
}

/// Adds the image that fits of those that a descriptor leads to; `json` is what it is of, where that is no blob.
fn image(from: &From<'_>, at: &Descriptor, json: Option<&[u8]>) -> Result<Loaded, Error> {
    let mut fetch = |it: &Descriptor| match json.filter(|_| it.digest == at.digest) {
        Some(json) => Ok(json.to_vec()),
        None => from.bundle.read(&path(&it.digest), manifest::MAX_LENGTH),
    };
    let found = manifest::find(at, &Platform::of_guests(), &mut fetch)?;
    let config = found.manifest.config.digest;
    let json = from
        .bundle
        .read(&path(&config), config::MAX_LENGTH as u64)?;
    if Digest::of(&json) != config {
        let (expected, found) = (config, Digest::of(&json));
        return Err(manifest::Error::Mismatch { expected, found }.into());
    }
    let layers = found.manifest.layers.iter();
    let layers: Vec<_> = layers.map(|layer| path(&layer.digest)).collect();
    let names: Vec<_> = name(at).into_iter().collect();
    from.image(&json, &layers, names)
}
