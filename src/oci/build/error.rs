//! Why an image is not built.

use crate::{confined, load, mirrors, save};
use kvmlet_image::store;
use kvmlet_spec::{Advice, Remedy};
use kvmlet_sys::lock;
use std::io;
use std::path::PathBuf;

/// Why an image is not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing here builds images.
    #[error("images are built by buildah or podman, and neither is installed")]
    NoEngine,
    /// It cannot be started.
    #[error("`{program}` cannot be run")]
    Start {
        /// Which one.
        program: &'static str,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// It has told why.
    #[error("`{program}` has not built the image: {how}")]
    Build {
        /// Which one.
        program: &'static str,
        /// How it has ended.
        how: String,
    },
    /// It does not do what is needed before.
    #[error("`{program}` does not {what}: {said}")]
    Engine {
        /// Which one.
        program: &'static str,
        /// The rest of a sentence.
        what: String,
        /// Its own words.
        said: String,
    },
    /// A file that is needed cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// Files are copied from a directory.
    #[error("`{}` is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// There is nothing that says how.
    #[error("there is neither a Containerfile nor a Dockerfile in `{}`", .0.display())]
    NoFile(PathBuf),
    /// The build's directory cannot be used.
    #[error("cannot use `{}`", .path.display())]
    Place {
        /// Which one.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// Somebody is at it.
    #[error("another build clears up in `{}`{}", .path.display(), .holder.as_ref().map_or(String::new(), |it| format!(": {it}")))]
    Busy {
        /// The lock.
        path: PathBuf,
        /// Who has it, where that can be told.
        holder: Option<lock::Holder>,
    },
    /// What was built is not one image.
    #[error("what was built is {0} images, not one")]
    Result(usize),
    /// What was built is not read.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// What it is built on is not written.
    #[error(transparent)]
    Save(#[from] save::Error),
    /// It is not known where what it is built on comes from.
    #[error(transparent)]
    From(#[from] mirrors::Error),
    /// What it is built on is not fetched.
    #[error(transparent)]
    Fetch(#[from] confined::Error),
    /// What it is built on does not come, and why is told.
    #[error("`{0}` is not pulled")]
    Base(String),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::NoEngine => Some("install the package `buildah`".into()),
            Self::NoDirectory(_) => Some(
                "name the directory that files are copied from; a Containerfile alone comes over standard input: `-`".into(),
            ),
            Self::NoFile(_) => Some("name the Containerfile with `-f`".into()),
            Self::Load(error) => error.remedy(),
            Self::From(error) => error.remedy(),
            Self::Store(error) => error.help().map(Into::into),
            _ => None,
        }
    }
}
