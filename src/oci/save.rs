//! Images as an archive that others read: an OCI layout, with docker's list beside it. Layers are not compressed in it, so
//! each has the digest by which the store knows it; and the same images are the same archive.

use kvmlet_image::Digest;
use kvmlet_image::manifest::media_type;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{self, Image, Store, StoredImage};
use kvmlet_spec::{Advice, Remedy};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{self, Read, Write};

/// Why images are not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store does not give them.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The archive cannot be written.
    #[error("the archive cannot be written")]
    Write(#[from] io::Error),
    /// The store has lost a layer.
    #[error("layer {0} is not there any more")]
    Lost(Digest),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        None
    }
}

/// What docker and containerd call images in an index.
const REFERENCE: &str = "org.opencontainers.image.ref.name";
const NAME: &str = "io.containerd.image.name";

/// Writes images, each with the name that it is asked for by, if there is one.
///
/// # Errors
/// When the store does not give them, or they cannot be written.
pub fn save(
    store: &Store,
    images: &[(StoredImage, Option<Reference>)],
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut archive = Archive {
        out: tar::Builder::new(out),
        written: HashSet::new(),
    };
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut index = Vec::new();
    let mut list: Vec<Value> = Vec::new();
    for (stored, name) in images {
        let image = &stored.image;
        let mut entry = archive.image(store, image)?;
        if let Some(name) = name {
            entry["annotations"] = json!({
                REFERENCE: name.tag().unwrap_or_default(),
                NAME: name.canonical(),
            });
        }
        let same = index.contains(&entry);
        if !same {
            index.push(entry);
        }
        let tag = name.iter().map(ToString::to_string);
        let config = path(&image.id);
        match list.iter_mut().find(|entry| entry["Config"] == *config) {
            Some(entry) => {
                if let Some(tags) = entry["RepoTags"].as_array_mut() {
                    tags.extend(tag.map(Value::from));
                }
            }
            None => {
                let layers: Vec<String> = image.config.layers.iter().map(path).collect();
                let tags: Vec<String> = tag.collect();
                list.push(json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
            }
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::INDEX,
        "manifests": index,
    });
    archive.file("index.json", index.to_string().as_bytes())?;
    archive.file("manifest.json", Value::Array(list).to_string().as_bytes())?;
    archive.out.finish()?;
    Ok(())
}

/// Where a blob is.
fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What is being written.
struct Archive<'a> {
    out: tar::Builder<&'a mut dyn Write>,
    /// Blobs that are in it.
    written: HashSet<Digest>,
}

impl Archive<'_> {
    /// Adds an image's blobs; what an index says of it.
    fn image(&mut self, store: &Store, image: &Image) -> Result<Value, Error> {
        let mut layers = Vec::new();
        for diff_id in &image.config.layers {
            let layer = store.layer(diff_id)?.ok_or(Error::Lost(*diff_id))?;
            if self.written.insert(*diff_id) {
                let mut content = layer.archive()?;
                self.entry(&path(diff_id), layer.archive_length, &mut content)?;
            }
            layers.push(json!({
                "mediaType": media_type::LAYER,
                "digest": diff_id,
                "size": layer.archive_length,
            }));
        }
        self.blob(&image.json)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": { "mediaType": media_type::CONFIG, "digest": image.id, "size": image.json.len() },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = self.blob(&manifest)?;
        Ok(json!({
            "mediaType": media_type::MANIFEST,
            "digest": digest,
            "size": manifest.len(),
        }))
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.written.insert(digest) {
            self.file(&path(&digest), bytes)?;
        }
        Ok(digest)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.entry(name, bytes.len() as u64, &mut &*bytes)
    }

    fn entry(&mut self, name: &str, length: u64, content: &mut dyn Read) -> Result<(), Error> {
        let mut header = tar::Header::new_ustar();
        header.set_size(length);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mtime(0);
        self.out.append_data(&mut header, name, content)?;
        Ok(())
    }
}
