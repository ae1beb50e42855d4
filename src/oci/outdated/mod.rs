//! Which packages of images there are newer ones of, by the package index of this host.

pub mod index;
mod packages;
mod version;

pub use packages::{Package, Release};

use index::Index;
use kvmlet_image::store::{self, Image, Store};
use kvmlet_spec::{Advice, Remedy};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The index cannot be read.
    #[error("cannot read `{}` of the package index", .path.display())]
    Index {
        /// Which file.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Index { .. } => Some("`apt update` makes it anew".into()),
            Self::Store(error) => error.help().map(Into::into),
        }
    }
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has none of dpkg's packages.
    NoPackages,
    /// It has some, of a release that the index does not have.
    Unknown(Release),
    /// Those of its packages that are not the newest ones, each with the version that is.
    Outdated(Vec<(Package, String)>),
}

/// Looks images up, of which many are of the same release.
#[derive(Debug)]
pub struct Search<'a> {
    lists: &'a Path,
    indices: BTreeMap<(String, String), Option<Index>>,
}

impl<'a> Search<'a> {
    /// One in the index that is kept in a directory.
    pub fn new(lists: &'a Path) -> Self {
        Self {
            lists,
            indices: BTreeMap::new(),
        }
    }

    /// Looks an image up.
    ///
    /// # Errors
    /// When the store or the index cannot be read.
    pub fn look(&mut self, store: &Store, image: &Image) -> Result<Found, Error> {
        let files = store.files(image)?;
        let packages = packages::of_image(&files)?;
        if packages.is_empty() {
            return Ok(Found::NoPackages);
        }
        let release = packages::release(&files)?;
        let key = (release.distribution.clone(), release.codename.clone());
        if !self.indices.contains_key(&key) {
            let index = Index::of(self.lists, &release)?;
            self.indices.insert(key.clone(), index);
        }
        let Some(Some(index)) = self.indices.get(&key) else {
            return Ok(Found::Unknown(release));
        };
        let newer = packages.into_iter().filter_map(|package| {
            let newest = index.newest(&package.name, &package.architecture)?;
            let is_newer = version::debian(newest, &package.version).is_gt();
            is_newer.then(|| (package, newest.to_owned()))
        });
        Ok(Found::Outdated(newer.collect()))
    }
}

#[cfg(test)]
mod tests;
