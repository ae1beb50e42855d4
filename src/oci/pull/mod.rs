//! The way of an image from a registry into the store. Layers come some at a time; what the store has does not come.

mod error;
mod layers;

pub use error::Error;

use crate::mirrors::Place;
use crate::progress::Progress;
use crate::registry::{Access, Options, Registry};
use kvmlet_image::Digest;
use kvmlet_image::config::{self, ImageConfig, Platform};
use kvmlet_image::manifest::{self, Descriptor, Found, media_type};
use kvmlet_image::reference::Reference;
use kvmlet_image::store::{self, Store};
use layers::Layers;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// By which name.
    pub reference: Reference,
    /// For which machine, if not for this one.
    pub platform: Option<Platform>,
}

/// What came.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image's id.
    pub id: Digest,
    /// By which the registry knows it: that of the index, where the name stands for one.
    pub digest: Digest,
    /// Whether the name stood for something else before, or for nothing.
    pub is_new: bool,
}

/// Reads `os/architecture[/variant]`, or an architecture alone.
pub fn platform(text: &str) -> Option<Platform> {
    let is_word = |part: &&str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        !part.is_empty() && part.bytes().all(is_part)
    };
    let lower = text.to_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    if !parts.iter().all(is_word) {
        return None;
    }
    let (os, architecture, variant) = match parts[..] {
        [architecture] if architecture != "linux" => ("linux", architecture, ""),
        [os, architecture] => (os, architecture, ""),
        [os, architecture, variant] => (os, architecture, variant),
        _ => return None,
    };
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Some(Platform {
        os: os.into(),
        architecture: architecture.into(),
        variant: variant.into(),
    })
}

/// Pulls an image, and gives it its name, and that with its digest: from the first place that gives it, of those that are
/// said of its registry (`mirrors::Registries::places`). What has come from one does not come again.
///
/// # Errors
/// When no place gives it, it is none, or the store does not take it. Layers that have come stay.
pub fn pull(
    store: &Store,
    places: Vec<Place>,
    options: &Options,
    wanted: &Wanted,
    show: bool,
) -> Result<Pulled, Error> {
    let mut places = places.into_iter();
    loop {
        // The last one is its own.
        let Some(place) = places.next() else {
            let name = wanted.reference.to_string();
            return Err(store::Error::NoImage(name).into());
        };
        let options = Options {
            is_insecure: place.is_insecure,
            // That was said of its own registry.
            plain_http: options.plain_http && !place.is_mirror,
            ..options.clone()
        };
        let connected = Registry::connect(&place.registry, &options).map_err(Error::from);
        let pulled =
            connected.and_then(|it| pull_from(store, &it, &place.repository, wanted, show));
        match pulled {
            // What a stranger gives instead of an image is as good as nothing; what the store says is not the mirror's fault.
            Err(error) if place.is_mirror && !matches!(error, Error::Store(_)) => {
                let mut why = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    why.push_str(&format!(": {error}"));
                    cause = error.source();
                }
                log::warn!("the mirror `{}` is passed over: {why}", place.registry);
            }
            other => return other,
        }
    }
}

/// Pulls an image of a repository in a registry.
fn pull_from(
    store: &Store,
    registry: &Registry,
    repository: &str,
    wanted: &Wanted,
    show: bool,
) -> Result<Pulled, Error> {
    let reference = &wanted.reference;
    let name = reference.to_string();
    let access = Access::pull(repository);
    let (digest, found) = find(registry, &access, wanted)?;
    let manifest = found.manifest;
    let kinds = [media_type::CONFIG, media_type::DOCKER_CONFIG, ""];
    if !kinds.contains(&&*manifest.config.media_type) {
        let kind = manifest.config.media_type.chars().take(200).collect();
        return Err(Error::Artifact { name, kind });
    }
    let json = registry.blob(&access, &manifest.config);
    let json = json.read_whole(config::MAX_LENGTH)?;
    let config = ImageConfig::parse(&json).map_err(|source| Error::Config {
        name: name.clone(),
        source,
    })?;
    check_platform(wanted, &config)?;
    let (given, named) = (manifest.layers.len(), config.layers.len());
    if given != named {
        return Err(Error::Layers { name, given, named });
    }
    let layers = Layers::new(&manifest, &config);
    let progress = Progress::new(
        show,
        layers
            .all
            .iter()
            .map(|it| (it.descriptor.digest, it.descriptor.size)),
    );
    let stored = layers.pull(store, registry, &access, &progress);
    progress.clear();
    let stored = stored?;
    let before = store
        .find(&reference.canonical())?
        .map(|image| image.image.id);
    // One image may have a layer twice, and the store wants it each time.
    let mut in_order = Vec::new();
    for layer in &config.layers {
        in_order.push(match store.layer(layer)? {
            Some(layer) => layer,
            // Taken away within this moment, though a lease is held: somebody else's work.
            None => return Err(store::Error::NoImage(layer.to_string()).into()),
        });
    }
    let names: Vec<Reference> = match (reference.tag(), reference.digest()) {
        (None, _) | (_, Some(_)) => vec![reference.at_digest(digest)],
        _ => vec![reference.clone(), reference.at_digest(digest)],
    };
    let image = store.add_image(&json, &in_order, &names)?;
    drop(stored);
    let id = image.image.id;
    Ok(Pulled {
        id,
        digest,
        is_new: before != Some(id),
    })
}

/// The manifest for the platform, and the digest that the name stands for.
fn find(registry: &Registry, access: &Access, wanted: &Wanted) -> Result<(Digest, Found), Error> {
    let reference = &wanted.reference;
    let by_digest = reference.digest().map(ToString::to_string);
    let which = by_digest.as_deref().or(reference.tag()).unwrap_or("latest");
    let first = registry.manifest(access, which, reference.digest().copied())?;
    let digest = first.digest;
    let descriptor = Descriptor {
        media_type: first.media_type,
        digest,
        size: first.bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
        urls: Vec::new(),
    };
    let platform = wanted.platform.clone().unwrap_or_else(Platform::of_guests);
    let mut first = Some(first.bytes);
    let mut fetch = |it: &Descriptor| -> Result<Vec<u8>, Error> {
        match first.take() {
            Some(bytes) => Ok(bytes),
            None => {
                let fetched = registry.manifest(access, &it.digest.to_string(), Some(it.digest))?;
                Ok(fetched.bytes)
            }
        }
    };
    let found =
        manifest::find(&descriptor, &platform, &mut fetch).map_err(|error| match error {
            Error::Unnamed(source) => Error::Manifest {
                name: reference.to_string(),
                source,
            },
            other => other,
        })?;
    Ok((digest, found))
}

/// An image that is there for one platform says only in its configuration for which.
fn check_platform(wanted: &Wanted, config: &ImageConfig) -> Result<(), Error> {
    let asked = wanted.platform.clone().unwrap_or_else(Platform::of_guests);
    let there = &config.platform;
    let differs = |asked: &str, there: &str| !there.is_empty() && asked != there;
    if differs(&asked.os, &there.os) || differs(&asked.architecture, &there.architecture) {
        return Err(Error::Manifest {
            name: wanted.reference.to_string(),
            source: manifest::Error::Platform {
                wanted: asked,
                available: vec![there.clone()],
            },
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read() {
        let read = |text| platform(text).map(|platform| platform.to_string());
        assert_eq!(read("x86_64").as_deref(), Some("linux/amd64"));
        assert_eq!(read("Linux/ARM/v7").as_deref(), Some("linux/arm/v7"));
        for wrong in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
