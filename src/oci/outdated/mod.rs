//! Which packages of images there are newer ones of, by the package index of this host.

pub mod alpine;
pub mod index;
mod packages;
mod version;

pub use packages::{Package, Release};

use index::Index;
use kvmlet_image::store::{self, Image, Store};
use kvmlet_spec::{Advice, Remedy};
use packages::Noted;
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
            Self::Index { path, .. } => Some(match path.extension().is_some_and(|it| it == "gz") {
                true => "`apk update` makes it anew".into(),
                false => "`apt update` makes it anew".into(),
            }),
            Self::Store(error) => error.help().map(Into::into),
        }
    }
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has no packages that are known.
    NoPackages,
    /// It has some of rpm's, which are not read.
    Unread,
    /// It has some, of a release that the index does not have.
    Unknown(Release),
    /// Those of its packages that are not the newest ones, each with the version that is.
    Outdated(Vec<(Package, String)>),
}

/// Looks images up, of which many are of the same release.
#[derive(Debug)]
pub struct Search<'a> {
    lists: &'a Path,
    cache: &'a Path,
    indices: BTreeMap<Release, Option<Index>>,
}

impl<'a> Search<'a> {
    /// One in the indices that apt and apk keep in their directories.
    pub fn new(lists: &'a Path, cache: &'a Path) -> Self {
        Self {
            lists,
            cache,
            indices: BTreeMap::new(),
        }
    }

    /// Looks an image up.
    ///
    /// # Errors
    /// When the store or the index cannot be read.
    pub fn look(&mut self, store: &Store, image: &Image) -> Result<Found, Error> {
        let files = store.files(image)?;
        let (packages, is_apk) = match packages::of_image(&files)? {
            Noted::Dpkg(packages) => (packages, false),
            Noted::Apk(packages) => (packages, true),
            Noted::Rpm => return Ok(Found::Unread),
            Noted::Nothing => return Ok(Found::NoPackages),
        };
        let release = packages::release(&files)?;
        if !self.indices.contains_key(&release) {
            let index = match (is_apk, &*release.distribution) {
                (false, _) => Index::of(self.lists, &release)?,
                (true, "alpine") => alpine::index(self.cache, &release)?,
                (true, _) => None,
            };
            self.indices.insert(release.clone(), index);
        }
        let Some(Some(index)) = self.indices.get(&release) else {
            return Ok(Found::Unknown(release));
        };
        let newer = packages.into_iter().filter_map(|package| {
            let newest = index.newer(&package)?.to_owned();
            Some((package, newest))
        });
        Ok(Found::Outdated(newer.collect()))
    }
}

#[cfg(test)]
mod tests;
