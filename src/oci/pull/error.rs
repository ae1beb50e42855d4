//! Why an image is not pulled.

use crate::mirrors;
use crate::registry;
use crate::unpack;
use kvmlet_image::config;
use kvmlet_image::manifest;
use kvmlet_image::store;
use kvmlet_spec::{Advice, Remedy};

/// Why an image is not pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not known where it comes from.
    #[error(transparent)]
    Place(#[from] mirrors::Error),
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// Its manifest is none, or not for this platform.
    #[error("`{name}` cannot be pulled")]
    Manifest {
        /// What was asked for.
        name: String,
        /// Why not.
        #[source]
        source: manifest::Error,
    },
    /// It is something else.
    #[error("`{name}` is not an image, but `{}`", .kind.escape_debug())]
    Artifact {
        /// What was asked for.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Its configuration is none.
    #[error("the configuration of `{name}`")]
    Config {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        #[source]
        source: config::Error,
    },
    /// Its manifest and its configuration tell of other layers.
    #[error("`{name}` has {given} layers, but its configuration names {named}")]
    Layers {
        /// What was asked for.
        name: String,
        /// In the manifest.
        given: usize,
        /// In the configuration.
        named: usize,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer is not taken apart.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// Only for the search of manifests, which knows no names.
    #[error(transparent)]
    Unnamed(#[from] manifest::Error),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Registry(error) => error.remedy(),
            Self::Place(error) => error.remedy(),
            Self::Manifest {
                source: manifest::Error::Platform { available, .. },
                ..
            } => {
                // What is to be typed is nothing that a shell understands otherwise.
                let is_plain = |text: &String| {
                    text.bytes().all(
                        |it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-'),
                    )
                };
                let first = available.iter().map(ToString::to_string).find(is_plain)?;
                Some(
                    format!(
                        "to have another one all the same, name its platform: `--platform {first}`"
                    )
                    .into(),
                )
            }
            Self::Artifact { .. } => Some("only images of services can be run".into()),
            _ => None,
        }
    }
}
