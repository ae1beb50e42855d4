//! What images are read from: an OCI layout, as a directory or an archive, or what `docker save` writes. Whether
//! an archive is compressed, and which of them it is, its content tells.

mod bundle;
mod docker;
mod layout;

pub use bundle::{Bundle, spool};

use crate::Digest;
use crate::config::{self, ImageConfig, Platform};
use crate::layer::{LIMITS, tar};
use crate::manifest;
use crate::reference::Reference;
use crate::store::{self, Begun, LayerAddition, Store, StoredLayer};
use std::error::Error as StdError;
use std::io::{self, Read};

/// Adds a layer by its archive. A caller may have another process take that apart.
pub type Add<'a> = &'a dyn Fn(LayerAddition<'_>, &mut dyn Read) -> Result<StoredLayer, Failed>;

/// Why a layer was not added.
pub type Failed = Box<dyn StdError + Send + Sync>;

/// Adds a layer in this process.
///
/// # Errors
/// As [`LayerAddition::add`].
pub fn add_here(
    addition: LayerAddition<'_>,
    archive: &mut dyn Read,
) -> Result<StoredLayer, Failed> {
    Ok(addition.add(archive, &LIMITS)?)
}

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not an archive, or broken.
    #[error(transparent)]
    Archive(#[from] tar::Error),
    /// It cannot be read, or is compressed badly.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// There is no place for it.
    #[error("there is no place to keep it meanwhile")]
    Spool(#[source] io::Error),
    /// Longer than an archive may be.
    #[error("an archive of more than {0} bytes")]
    Long(u64),
    /// More files than images have.
    #[error("an archive of more than {0} files")]
    ManyFiles(usize),
    /// Their paths are longer than those of images.
    #[error("an archive whose paths have more than {0} bytes altogether")]
    LongPaths(usize),
    /// A list of images is longer than any.
    #[error("a list of more than {0} images")]
    ManyImages(usize),
    /// A file that it names is not in it.
    #[error("there is no `{}` in it", .0.escape_debug())]
    Missing(String),
    /// A file is longer than any of its kind.
    #[error("`{}` has {length} bytes, more than {most}", .name.escape_debug())]
    LongFile {
        /// Which one.
        name: String,
        /// In bytes.
        length: u64,
        /// What it may have.
        most: u64,
    },
    /// Neither an OCI layout nor what `docker save` writes.
    #[error("there are no images in it: neither `index.json` nor `manifest.json`")]
    NoImages,
    /// A list of images is none.
    #[error("`{name}` is not a list of images")]
    List {
        /// The file.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest is none, or there is none for this platform.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// An image's configuration is none.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The image is for another platform.
    #[error("an image for {0}")]
    Platform(Platform),
    /// As many archives as the configuration has layers are to be there.
    #[error("an image of {named} layers with {given} archives")]
    Layers {
        /// In its configuration.
        named: usize,
        /// In the manifest.
        given: usize,
    },
    /// A layer was not added.
    #[error("layer {diff_id} was not added")]
    Layer {
        /// Which one.
        diff_id: Digest,
        /// Why not.
        #[source]
        source: Failed,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The most images that a bundle lists.
const MAX_IMAGES: usize = 1000;

/// An image of a bundle, which is in the store now. It holds no more than that: a bundle may list the same large image
/// again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// What it is called in the bundle.
    pub names: Vec<Reference>,
}

/// Adds all images of a bundle that are for this platform, with the names that they have there.
///
/// # Errors
/// When there is none, or one is broken.
pub fn load(store: &Store, bundle: &Bundle, add: Add<'_>) -> Result<Vec<Loaded>, Error> {
    let from = From { store, bundle, add };
    // Those of docker have both, since it writes layouts, and names are plainer in its own list.
    match (bundle.open("manifest.json")?, bundle.open("index.json")?) {
        (Some(_), _) if matches!(bundle, Bundle::Archive { .. }) => docker::load(&from),
        (_, Some(_)) => layout::load(&from),
        _ => Err(Error::NoImages),
    }
}

/// Where images come from, and where they go.
struct From<'a> {
    store: &'a Store,
    bundle: &'a Bundle,
    add: Add<'a>,
}

impl From<'_> {
    /// Adds an image of layers that are files of the bundle, the lowest first.
    fn image(&self, json: &[u8], files: &[String], names: Vec<Reference>) -> Result<Loaded, Error> {
        let config = ImageConfig::parse(json)?;
        let wanted = Platform::of_guests();
        if (&config.platform.os, &config.platform.architecture)
            != (&wanted.os, &wanted.architecture)
        {
            return Err(Error::Platform(config.platform));
        }
        if files.len() != config.layers.len() {
            let (named, given) = (config.layers.len(), files.len());
            return Err(Error::Layers { named, given });
        }
        let pairs = config.layers.iter().zip(files);
        let layers = pairs.map(|(diff_id, file)| self.layer(diff_id, file));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let stored = self.store.add_image(json, &layers, &names)?;
        let id = stored.image.id;
        Ok(Loaded { id, names })
    }

    fn layer(&self, diff_id: &Digest, file: &str) -> Result<StoredLayer, Error> {
        match self.store.begin_layer(diff_id)? {
            Begun::There(layer) => Ok(layer),
            Begun::Yours(addition) => {
                let missing = || Error::Missing(file.into());
                let (mut archive, _) = self.bundle.open(file)?.ok_or_else(missing)?;
                let added = (self.add)(addition, &mut archive);
                added.map_err(|source| {
                    let diff_id = *diff_id;
                    Error::Layer { diff_id, source }
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
