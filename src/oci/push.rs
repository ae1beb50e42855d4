//! The way of an image from the store into a registry. Its layers are packed anew, the same way each time: what the
//! registry has already does not go again.

use crate::progress::{Progress, Stage};
use crate::registry::{self, Access, Registry};
use flate2::Compression;
use flate2::write::GzEncoder;
use kvmlet_image::Digest;
use kvmlet_image::manifest::media_type;
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{self, Image, Store, StoredLayer};
use kvmlet_spec::{Advice, Remedy};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};

/// What went.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// By which the registry knows it.
    pub digest: Digest,
    /// Of its manifest, in bytes.
    pub size: usize,
}

/// Why an image is not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer cannot be packed.
    #[error("layer {diff_id} cannot be packed")]
    Pack {
        /// Which one.
        diff_id: Digest,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// The store has lost it.
    #[error("layer {0} is not there any more")]
    Lost(Digest),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Registry(error) => error.remedy(),
            _ => None,
        }
    }
}

/// A layer as a registry has it.
struct Packed {
    digest: Digest,
    size: u64,
    file: File,
}

/// Pushes an image by a name.
///
/// # Errors
/// When the registry does not take it, or the store does not give it.
pub fn push(
    store: &Store,
    registry: &Registry,
    image: &Image,
    name: &Reference,
    show: bool,
) -> Result<Pushed, Error> {
    let same = image
        .names
        .iter()
        .filter(|other| other.registry() == name.registry());
    let mut others: Vec<String> = same.map(|other| other.repository().to_owned()).collect();
    others.retain(|other| other != name.repository());
    others.dedup();
    let access = Access::push(name.repository(), others.clone());
    let mut layers = Vec::new();
    for diff_id in &image.config.layers {
        layers.push(store.layer(diff_id)?.ok_or(Error::Lost(*diff_id))?);
    }
    let progress = Progress::new(
        show,
        layers.iter().map(|it| (it.diff_id, it.archive_length)),
    );
    let mut descriptors = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let packed = store.scratch().and_then(|file| pack(layer, file));
        let packed = packed.map_err(|source| Error::Pack {
            diff_id: layer.diff_id,
            source,
        })?;
        let mut open = || {
            let mut file = packed.file.try_clone()?;
            file.rewind()?;
            Ok(Box::new(file) as Box<dyn Read>)
        };
        let moved = give(
            registry,
            &access,
            &others,
            (&packed.digest, packed.size),
            &mut open,
        )?;
        if moved {
            progress.note(number, Stage::Moved(layer.archive_length));
        }
        progress.note(number, if moved { Stage::Done } else { Stage::Exists });
        descriptors.push(json!({
            "mediaType": media_type::LAYER_GZIP,
            "digest": packed.digest,
            "size": packed.size,
        }));
    }
    progress.clear();
    let config = image.json.clone();
    let mut open = || Ok(Box::new(io::Cursor::new(config.clone())) as Box<dyn Read>);
    let size = image.json.len() as u64;
    give(registry, &access, &others, (&image.id, size), &mut open)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "config": { "mediaType": media_type::CONFIG, "digest": image.id, "size": size },
        "layers": descriptors,
    });
    let bytes = manifest.to_string().into_bytes();
    let which = name.tag().unwrap_or("latest");
    registry.put_manifest(&access, which, media_type::MANIFEST, &bytes)?;
    Ok(Pushed {
        digest: Digest::of(&bytes),
        size: bytes.len(),
    })
}

/// Has the registry have a blob; tells whether that had to be moved.
fn give(
    registry: &Registry,
    access: &Access,
    others: &[String],
    (digest, size): (&Digest, u64),
    open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
) -> Result<bool, Error> {
    if registry.has(access, digest)? {
        return Ok(false);
    }
    for other in others {
        if registry.mount(access, digest, other)? {
            return Ok(false);
        }
    }
    registry.put(access, digest, size, open)?;
    Ok(true)
}

/// Packs a layer into a file without a name.
fn pack(layer: &StoredLayer, file: File) -> io::Result<Packed> {
    let mut archive = layer.archive().map_err(io::Error::other)?;
    let out = Counted {
        out: BufWriter::with_capacity(256 << 10, file),
        digest: Sha256::new(),
        length: 0,
    };
    let mut encoder = GzEncoder::new(out, Compression::new(5));
    io::copy(&mut archive, &mut encoder)?;
    let out = encoder.finish()?;
    let file = out
        .out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok(Packed {
        digest: Digest(out.digest.finalize().into()),
        size: out.length,
        file,
    })
}

/// What is written, with its digest and length.
struct Counted<W> {
    out: W,
    digest: Sha256,
    length: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
