//! The store of images: layers by the digest of their archives, images by the digest of their configurations, and names.
//!
//! A layer is one file: the content of its files as blocks, then what it changes, and what of its archive is neither. An
//! image is one file: the merged metadata of its layers, an EROFS, then its configuration. A guest's disk is an image's
//! blocks with those of its layers behind, in their order; nothing is copied for an image or a VM.
//!
//! Who uses a file of the store has it open with a lock to read it ([`Lease`]), as a VM has its disks; what nobody has
//! locked and nothing names can be removed. A file has its name only when it is whole and on the disk, and is never changed.

mod check;
mod error;
mod file;
mod files;
mod garbage;
mod images;
mod layers;
mod locks;
mod names;
mod place;

pub use check::{Broken, Checked};
pub use error::Error;
pub use files::Files;
pub use garbage::Removed;
pub use layers::{Begun, LayerAddition, StoredLayer, fill_layer};

use crate::Digest;
use crate::config::ImageConfig;
use crate::reference::Reference;
use kvmlet_sys::directory::Directory;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// An open store.
#[derive(Debug)]
pub struct Store {
    directory: Directory,
    layers: Directory,
    images: Directory,
}

/// Bytes of a file that are part of a disk; multiples of 4096.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file, by an absolute path.
    pub path: PathBuf,
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is, not 0.
    pub length: u64,
}

/// Keeps a file of the store from being removed: an open file with a lock to read it. The lock belongs to the open file,
/// so it lasts as long as any process has a copy of the descriptor. Descriptors are closed at exec(2); whoever wants it to
/// outlast that makes a copy that is not.
///
/// Whoever opens the same files as disks has locks of the same kind, and needs no lease from then on.
#[derive(Debug)]
pub struct Lease(File);

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An image that the store has.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// What it is called: tags, sorted, then by digests where it came from.
    pub names: Vec<Reference>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its configuration as it is written.
    pub json: Vec<u8>,
    /// The disk that a guest mounts as EROFS: the merged metadata, then the content of each layer. In this order and
    /// whole, for the metadata counts on it.
    pub extents: Vec<Extent>,
}

impl Image {
    /// How long its disk is, in bytes: what it takes, without the archives' headers, shared with others or not.
    pub fn size(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }
}

/// An image that stays in the store as long as its lease is held.
#[derive(Debug)]
pub struct StoredImage {
    /// What it is.
    pub image: Image,
    /// What keeps it, its layers among it.
    pub lease: Lease,
}

impl Store {
    /// The store of this process's user, made if it is not there: `images` in `/var/lib/kvmlet` or `$XDG_DATA_HOME/kvmlet`.
    ///
    /// # Errors
    /// When it cannot be made or opened, or somebody else could have written it.
    pub fn of_user() -> Result<Self, Error> {
        Self::within(place::of_user()?)
    }

    /// The store at a path, made if it is not there; the directory around it is.
    ///
    /// # Errors
    /// As [`of_user`](Self::of_user).
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::within(place::at(root)?)
    }

    /// Where it is: all of its files are below.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file without a name on the store's disk, which goes when it is closed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn scratch(&self) -> std::io::Result<File> {
        kvmlet_sys::temporary::unnamed(&self.directory)
    }

    /// A directory in that of the store, for what is kept beside images; made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn subdirectory(&self, name: &str) -> Result<Directory, Error> {
        let made = self.directory.subdirectory(name);
        made.map_err(Error::io(&self.directory.path().join(name)))
    }

    /// Whether there is such a directory.
    pub fn has_subdirectory(&self, name: &str) -> bool {
        self.directory.existing_subdirectory(name).is_ok()
    }

    fn within(directory: Directory) -> Result<Self, Error> {
        let inside = |name| {
            let made = directory.subdirectory(name);
            made.map_err(Error::io(&directory.path().join(name)))
        };
        Ok(Self {
            layers: inside("layers")?,
            images: inside("images")?,
            directory,
        })
    }
}

#[cfg(test)]
mod tests;
