//! Why the store does not do what it is asked for.

use crate::Digest;
use crate::{config, erofs, layer, merge};
use kvmlet_sys::interrupt::Interrupted;
use kvmlet_sys::{lock, trusted};
use std::io;
use std::path::{Path, PathBuf};

/// Why the store does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory is not used.
    #[error(transparent)]
    Place(#[from] trusted::Error),
    /// Nobody says where this user's files are.
    #[error("there is no place for images: neither HOME nor XDG_DATA_HOME is set")]
    Homeless,
    /// The kernel says no.
    #[error("cannot use `{}`", .path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A layer is none.
    #[error("layer {diff_id}")]
    Layer {
        /// As the image calls it.
        diff_id: String,
        /// What is wrong with it.
        #[source]
        source: layer::Error,
    },
    /// A layer is another one than the image says.
    #[error("a layer that should be {expected} is {found}")]
    OtherLayer {
        /// As the image calls it.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A layer cannot be written to the end.
    #[error("layer {digest} cannot be written")]
    Unwritten {
        /// Which one.
        digest: Digest,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An image's configuration is none.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The configuration does not name these layers.
    #[error("an image's configuration names {named} layers, and the image has {given} or others")]
    OtherLayers {
        /// In the configuration.
        named: usize,
        /// In the image.
        given: usize,
    },
    /// The layers do not fit on each other.
    #[error(transparent)]
    Merge(#[from] merge::Error),
    /// There is no such image.
    #[error("there is no image `{}`", .0.escape_debug())]
    NoImage(String),
    /// The beginning of an id is that of several.
    #[error("`{}` is the beginning of {count} images' ids", .text.escape_debug())]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many there are.
        count: usize,
    },
    /// A VM has it, or another command.
    #[error("image {} is in use", .0.short())]
    InUse(Digest),
    /// It would be taken from somebody who counts on it by another name.
    #[error("image {} has {names} names", .id.short())]
    ManyNames {
        /// Its id.
        id: Digest,
        /// How many.
        names: usize,
    },
    /// Something is not as it was written.
    #[error("{what} {digest} is broken: {why}")]
    Broken {
        /// A layer, or an image.
        what: &'static str,
        /// Which one.
        digest: Digest,
        /// In a line.
        why: String,
    },
    /// A layer of an image is not there, or not the one that the image was made of.
    #[error("layer {layer} of image {} is {why}", .image.short())]
    Incomplete {
        /// The image's id.
        image: Digest,
        /// The layer's digest.
        layer: Digest,
        /// Missing, for one.
        why: &'static str,
    },
    /// The table of names is not as it was written.
    #[error("the names of images in `{}` are broken", .0.display())]
    Names(PathBuf),
    /// Somebody has the store's lock for longer than anybody should.
    #[error("the lock `{}` is not available{}", .path.display(), .holder.as_ref().map_or(String::new(), |it| format!(": {it} has it")))]
    Busy {
        /// The lock.
        path: PathBuf,
        /// Who has it, where that can be told.
        holder: Option<lock::Holder>,
    },
    /// The merged metadata is not written.
    #[error("the file system of an image")]
    Metadata(#[from] erofs::Error),
    /// This process is to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Error {
    /// What the kernel says of a path.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }

    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Place(error) => return Some(error.help()),
            Self::Homeless => "set XDG_DATA_HOME to a directory of your own",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "images that nobody uses can be removed by `kvmlet image prune`"
            }
            Self::Ambiguous { .. } => "say more of its id",
            Self::InUse(_) => "stop and remove what runs it first",
            Self::ManyNames { .. } => "name those that are to go, or force it",
            Self::Broken { .. } | Self::Names(_) => {
                "`kvmlet image check` takes away what is broken; then pull or load it again"
            }
            Self::Incomplete { .. } => "pull or load the image again",
            _ => return None,
        };
        Some(help.into())
    }
}
