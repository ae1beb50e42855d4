//! Images of archives: OCI layouts, what `docker save` and `podman save` write, and the tree of a root file system. What
//! is decompressed and taken apart is so in a process that can do nothing else.

use crate::unpack;
use kvmlet_image::Digesting;
use kvmlet_image::config::Platform;
use kvmlet_image::pack;
use kvmlet_image::reference::Reference;
use kvmlet_image::source::{self, Bundle, Loaded};
use kvmlet_image::store::{self, Begun, LayerAddition, Store, StoredImage, StoredLayer};
use kvmlet_spec::{Advice, Remedy};
use kvmlet_sys::regular;
use serde_json::json;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

/// Why images are not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("`{name}` cannot be read")]
    Read {
        /// What the user named.
        name: String,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// It has no images, or broken ones.
    #[error("no images can be read from `{name}`")]
    Source {
        /// What the user named.
        name: String,
        /// Why not.
        #[source]
        source: source::Error,
    },
    /// What is in it is not unpacked: it is broken, or there is no room for it.
    #[error("`{name}` cannot be unpacked into the directory of images")]
    Unpacked {
        /// What the user named.
        name: String,
        /// Why not.
        #[source]
        source: unpack::Error,
    },
    /// A directory is not made an archive.
    #[error(transparent)]
    Pack(#[from] pack::Error),
    /// A layer is not taken apart.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        match self {
            Self::Source {
                source: source::Error::NoImages,
                ..
            } => Some("the tree of a root file system is made an image by `kvmlet import`".into()),
            Self::Store(error) => error.help().map(Into::into),
            _ => None,
        }
    }
}

/// Where an archive comes from.
pub enum Source<'a> {
    /// A file, or a directory.
    Path(&'a Path),
    /// Standard input.
    Input,
}

impl Source<'_> {
    fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Input => "standard input".into(),
        }
    }

    /// The same error, with the name of what is unpacked.
    fn unpacked(&self, error: Error) -> Error {
        match error {
            Error::Unpack(source) => Error::Unpacked {
                name: self.name(),
                source,
            },
            other => other,
        }
    }

    /// What it is once it is decompressed, in a file that can be read from anywhere.
    fn plain(&self, store: &Store) -> Result<File, Error> {
        let failed = |source| Error::Read {
            name: self.name(),
            source,
        };
        let mut file = match self {
            Self::Path(path) => regular::stream(path).map_err(failed)?,
            Self::Input => {
                File::from(rustix::io::dup(rustix::stdio::stdin()).map_err(|it| failed(it.into()))?)
            }
        };
        let is_file = file.metadata().map_err(failed)?.is_file();
        if is_file && !is_compressed(&mut file).map_err(failed)? {
            return Ok(file);
        }
        let mut plain = store.scratch().map_err(failed)?;
        unpack::decompress(&mut file, &plain).map_err(|error| self.unpacked(error.into()))?;
        plain.rewind().map_err(failed)?;
        Ok(plain)
    }
}

/// By its first bytes; a file is as it was then.
fn is_compressed(file: &mut File) -> io::Result<bool> {
    let mut first = Vec::new();
    Read::by_ref(file).take(4).read_to_end(&mut first)?;
    file.rewind()?;
    let skippable = first.len() == 4 && first[0] & 0xf0 == 0x50 && first[1..] == [0x2a, 0x4d, 0x18];
    Ok(first.starts_with(&[0x1f, 0x8b]) || first == [0x28, 0xb5, 0x2f, 0xfd] || skippable)
}

/// Reads all images of an archive that are for this platform.
///
/// # Errors
/// When it is none, or the store does not take it. Images that were read by then stay.
pub fn load(store: &Store, source: &Source<'_>) -> Result<Vec<Loaded>, Error> {
    let failed = |error| Error::Source {
        name: source.name(),
        source: error,
    };
    let bundle = match source {
        Source::Path(path) if path.is_dir() => Bundle::Directory((*path).into()),
        _ => Bundle::archive(source.plain(store)?, || store.scratch()).map_err(failed)?,
    };
    let add = |addition: LayerAddition<'_>, archive: &mut dyn Read| {
        add(addition, archive).map_err(source::Failed::from)
    };
    source::load(store, &bundle, &add).map_err(failed)
}

/// Has another process take a layer apart.
fn add(addition: LayerAddition<'_>, archive: impl Read) -> Result<StoredLayer, Error> {
    let diff_id = *addition.diff_id();
    addition.add_by(|file, place| Ok(unpack::unpack(&diff_id, archive, file, place.path())?))
}

/// Makes an image of one layer: the tree of a root file system, in an archive or in a directory, where all is root's and
/// of no time.
///
/// # Errors
/// When it is neither, or the store does not take it.
pub fn import(
    store: &Store,
    source: &Source<'_>,
    names: &[Reference],
) -> Result<StoredImage, Error> {
    let failed = |error| Error::Read {
        name: source.name(),
        source: error,
    };
    let mut plain = match source {
        Source::Path(directory) if directory.is_dir() => {
            let mut packed = store.scratch().map_err(failed)?;
            pack::archive(directory, &mut packed)?;
            packed.rewind().map_err(failed)?;
            packed
        }
        _ => source.plain(store)?,
    };
    let mut digesting = Digesting::default();
    io::copy(&mut plain, &mut digesting).map_err(failed)?;
    let diff_id = digesting.digest();
    let layer = match store.begin_layer(&diff_id)? {
        Begun::There(layer) => layer,
        Begun::Yours(addition) => {
            plain.rewind().map_err(failed)?;
            add(addition, &plain).map_err(|error| source.unpacked(error))?
        }
    };
    let platform = Platform::of_guests();
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "comment": format!("Imported from {}", source.name()) }],
    });
    Ok(store.add_image(config.to_string().as_bytes(), &[layer], names)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_command::Failed;
    use rustix::io::Errno;

    #[test]
    fn what_has_no_room_is_named() {
        for (source, name) in [
            (Source::Input, "standard input"),
            (
                Source::Path(Path::new("/x/rootfs.tar.gz")),
                "/x/rootfs.tar.gz",
            ),
        ] {
            let full = unpack::Error::Archive {
                what: "the archive".into(),
                source: Errno::NOSPC.into(),
            };
            let said = Failed::from(source.unpacked(full.into())).to_string();
            let first =
                format!("error: `{name}` cannot be unpacked into the directory of images\n");
            assert!(said.starts_with(&first), "{said}");
            assert!(
                said.ends_with("caused by: no space left on device\n"),
                "{said}"
            );
        }
    }
}
