//! What registries and layouts say of an image: manifests, and indexes with one for each platform, as the OCI image
//! specification and docker (schema 2) have them. Which of the two a text is, its content tells.

mod written;

use crate::Digest;
use crate::config::Platform;
use std::collections::BTreeMap;
use written::{Part, Written};

/// The longest manifest or index, as registries have it.
pub const MAX_LENGTH: u64 = 4 << 20;
/// The most layers that an image has; docker's has 127.
pub const MAX_LAYERS: usize = 1024;
/// Indexes in each other.
const MAX_DEPTH: usize = 4;
/// How many documents are looked at for one image.
const MAX_DOCUMENTS: usize = 64;
/// What BuildKit says of manifests that are no images.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Media types as they are written.
pub mod media_type {
    /// The OCI's index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// The OCI's manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// The OCI's configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer that is not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// A layer, compressed by gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer, compressed by zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layers, compressed by gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// What is said of content that is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it is called; often wrong, and often missing.
    pub media_type: String,
    /// By which it is found and checked.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What it runs on, where that is said.
    pub platform: Option<Platform>,
    /// What else is said.
    pub annotations: BTreeMap<String, String>,
    /// Where it is as well.
    pub urls: Vec<String>,
}

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers as they are stored, compressed or not, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Of one image.
    Manifest(Manifest),
    /// Of some.
    Index(Vec<Descriptor>),
}

/// A manifest that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub manifest: Manifest,
    /// Its digest.
    pub digest: Digest,
    /// What it is called.
    pub media_type: String,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Longer than any.
    #[error("a manifest of {0} bytes, more than {MAX_LENGTH}")]
    Long(u64),
    /// Not JSON, or of another shape.
    #[error("not a manifest of an image")]
    Json(#[from] serde_json::Error),
    /// What docker wrote before 2017.
    #[error("a manifest of schema 1, which registries and tools have given up")]
    Schema1,
    /// It is JSON, and no manifest.
    #[error("a document with neither layers nor manifests")]
    Nothing,
    /// A value makes no sense.
    #[error("{what} of a manifest: `{}`", .value.escape_debug())]
    Value {
        /// Which one.
        what: &'static str,
        /// As it is written.
        value: String,
    },
    /// More layers than an image has.
    #[error("an image of {0} layers, more than {MAX_LAYERS}")]
    ManyLayers(usize),
    /// Content is other than its digest says.
    #[error("content that should be {expected} is {found}")]
    Mismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// There are images, for others.
    #[error("no image for {wanted}; there is one for {}", list(.available))]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<Platform>,
    },
    /// Indexes of indexes of indexes.
    #[error("indexes in each other, or more than {MAX_DOCUMENTS} documents for one image")]
    Deep,
}

fn list(platforms: &[Platform]) -> String {
    let all: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    match all.is_empty() {
        true => "no platform".into(),
        false => all.join(", "),
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They are a stranger's words.
        let [os, architecture, variant] =
            [&self.os, &self.architecture, &self.variant].map(|it| it.escape_debug());
        write!(f, "{os}/{architecture}")?;
        match self.variant.is_empty() {
            true => Ok(()),
            false => write!(f, "/{variant}"),
        }
    }
}

impl Platform {
    /// What guests run: Linux on this machine's processor.
    pub fn of_guests() -> Self {
        Self {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: String::new(),
        }
    }

    /// How well an image for this platform fits to another one's wish: not, or the less the better.
    fn fits(&self, wanted: &Self) -> Option<u32> {
        if (&self.os, &self.architecture) != (&wanted.os, &wanted.architecture) {
            return None;
        }
        let version = |text: &str| match text.strip_prefix('v') {
            Some(number) => number.parse().unwrap_or(u32::MAX),
            // Each processor has the first one.
            None => 1,
        };
        Some(version(&self.variant).abs_diff(version(&wanted.variant)))
    }
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// Why it is neither.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        if json.len() as u64 > MAX_LENGTH {
            return Err(Error::Long(json.len() as u64));
        }
        let written: Written = serde_json::from_slice(json)?;
        match written {
            Written {
                manifests: Some(all),
                ..
            } => {
                let all = all.into_iter().map(Descriptor::read);
                Ok(Self::Index(all.collect::<Result<_, _>>()?))
            }
            Written {
                config: Some(config),
                layers: Some(layers),
                ..
            } => {
                if layers.len() > MAX_LAYERS {
                    return Err(Error::ManyLayers(layers.len()));
                }
                let layers = layers.into_iter().map(Descriptor::read);
                Ok(Self::Manifest(Manifest {
                    config: Descriptor::read(config)?,
                    layers: layers.collect::<Result<_, _>>()?,
                }))
            }
            Written {
                schema_version: 1, ..
            } => Err(Error::Schema1),
            _ => Err(Error::Nothing),
        }
    }
}

impl Descriptor {
    fn read(part: Part) -> Result<Self, Error> {
        let Some(digest) = Digest::parse(&part.digest) else {
            let value = part.digest.chars().take(200).collect();
            let what = "a digest";
            return Err(Error::Value { what, value });
        };
        let Ok(size) = u64::try_from(part.size) else {
            let value = part.size.to_string();
            let what = "a size";
            return Err(Error::Value { what, value });
        };
        let platform = part.platform.map(|it| Platform {
            os: it.os,
            architecture: it.architecture,
            variant: it.variant,
        });
        Ok(Self {
            media_type: part.media_type,
            digest,
            size,
            platform,
            annotations: part.annotations,
            urls: part.urls,
        })
    }

    /// Whether it is called an index.
    pub fn is_index(&self) -> bool {
        [media_type::INDEX, media_type::DOCKER_INDEX].contains(&&*self.media_type)
    }

    /// Whether it is something beside images: what a builder says of them.
    fn is_attestation(&self) -> bool {
        let is_unknown = |it: &Platform| it.os == "unknown" && it.architecture == "unknown";
        self.annotations.contains_key(ATTESTATION) || self.platform.as_ref().is_some_and(is_unknown)
    }
}

/// Finds an image's manifest for a platform: `fetch` brings a document by its descriptor, whose digest is checked here.
///
/// # Errors
/// Those of `fetch`, and why there is none.
pub fn find<E: From<Error>>(
    from: &Descriptor,
    wanted: &Platform,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Found, E> {
    let mut search = Search {
        wanted,
        fetch,
        left: MAX_DOCUMENTS,
        available: Vec::new(),
    };
    match search.document(from, 0)? {
        Some(found) => Ok(found),
        None => Err(E::from(Error::Platform {
            wanted: wanted.clone(),
            available: search.available,
        })),
    }
}

struct Search<'a, E> {
    wanted: &'a Platform,
    fetch: &'a mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
    left: usize,
    /// What the indexes have for others.
    available: Vec<Platform>,
}

impl<E: From<Error>> Search<'_, E> {
    fn document(&mut self, at: &Descriptor, depth: usize) -> Result<Option<Found>, E> {
        if depth > MAX_DEPTH || self.left == 0 {
            return Err(Error::Deep.into());
        }
        self.left -= 1;
        let json = (self.fetch)(at)?;
        let (expected, found) = (at.digest, Digest::of(&json));
        if expected != found {
            return Err(Error::Mismatch { expected, found }.into());
        }
        match Document::parse(&json)? {
            Document::Manifest(manifest) => Ok(Some(Found {
                manifest,
                digest: found,
                media_type: at.media_type.clone(),
            })),
            Document::Index(all) => self.index(&all, depth),
        }
    }

    fn index(&mut self, all: &[Descriptor], depth: usize) -> Result<Option<Found>, E> {
        let mut candidates = Vec::new();
        for (place, it) in all.iter().enumerate() {
            if it.is_attestation() {
                continue;
            }
            match &it.platform {
                Some(platform) => match platform.fits(self.wanted) {
                    Some(distance) => candidates.push((distance, place)),
                    None => self.available.push(platform.clone()),
                },
                // It says itself.
                None => candidates.push((u32::MAX, place)),
            }
        }
        candidates.sort_unstable();
        for (_, place) in candidates {
            let found = self.document(&all[place], depth + 1)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
