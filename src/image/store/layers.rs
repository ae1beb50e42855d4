//! Layers: added once, whoever wants them at the same time; read back for images and for archives.

use super::file::{Blocks, Found, Kind, NewFile, Part, Sealed};
use super::locks::Turn;
use super::{Error, Lease, Store};
use crate::Digest;
use crate::blob::Blob;
use crate::layer::{self, Changes, Layer, Limits, Rebuilt, Rest};
use crate::tree::BLOCK;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::temporary::unnamed;
use std::fs::File;
use std::io::{BufWriter, Read, Seek};

/// The most that a layer's content takes, in blocks: a terabyte.
const MAX_BLOCKS: u32 = 1 << 28;
/// The most that what is beside content takes, compressed: a gigabyte is that of many million headers.
const MAX_REST: u64 = 1 << 30;

/// A layer that the store has. It stays there as long as this value does.
#[derive(Debug)]
pub struct StoredLayer {
    /// The digest of its archive, not compressed.
    pub diff_id: Digest,
    /// The length of its archive, not compressed, in bytes.
    pub archive_length: u64,
    /// The content of its files in the store, in bytes.
    pub data_length: u64,
    sealed: Sealed,
}

/// What came of asking for a layer that is to be added.
#[derive(Debug)]
pub enum Begun<'a> {
    /// Somebody has added it.
    There(StoredLayer),
    /// It is to be added now, and whoever else wants it waits meanwhile.
    Yours(LayerAddition<'a>),
}

/// The right to add a layer. Dropped, it is the next one's who waits.
#[derive(Debug)]
pub struct LayerAddition<'a> {
    store: &'a Store,
    diff_id: Digest,
    _turn: Turn,
}

impl StoredLayer {
    fn new(sealed: Sealed) -> Self {
        let seal = sealed.seal;
        Self {
            diff_id: seal.digest,
            archive_length: seal.length,
            data_length: seal.data().0,
            sealed,
        }
    }

    /// What it changes.
    ///
    /// # Errors
    /// When it cannot be read, or is broken.
    pub fn changes(&self) -> Result<Changes, Error> {
        let text = self.sealed.text(1)?;
        let changes = text.and_then(|text| Changes::from_bytes(&text));
        changes.ok_or_else(|| self.broken("what it changes cannot be read"))
    }

    /// Its archive, byte for byte as it was added, not compressed.
    ///
    /// # Errors
    /// When it cannot be opened; when it is broken, that is seen while it is read, or by its digest.
    pub fn archive(&self) -> Result<Rebuilt<Part>, Error> {
        let sealed = &self.sealed;
        let data = sealed.file.try_clone().map_err(Error::io(&sealed.path))?;
        Ok(Rebuilt::new(sealed.part(2)?, data, self.data_length))
    }

    /// What keeps it in the store, for whoever wants to have that longer.
    pub fn into_lease(self) -> Lease {
        Lease(self.sealed.file)
    }

    pub(super) fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    fn broken(&self, why: &str) -> Error {
        Error::Broken {
            what: "layer",
            digest: self.diff_id,
            why: why.into(),
        }
    }
}

impl LayerAddition<'_> {
    /// Which layer it is.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// Adds it from its archive, compressed or not, which is checked while it is read.
    ///
    /// # Errors
    /// When it is another one, no layer, more than the limits let it be, or cannot be kept. Nothing is left then.
    pub fn add(self, archive: impl Read, limits: &Limits) -> Result<StoredLayer, Error> {
        let diff_id = self.diff_id;
        self.add_by(|file, place| {
            let failed = Error::io(place.path());
            let (file, rest) = (
                file.try_clone().map_err(&failed)?,
                unnamed(place).map_err(&failed)?,
            );
            fill_layer(archive, &diff_id, limits, file, rest)
        })
    }

    /// Adds it from a file that somebody else fills by [`fill_layer`], such as a process without rights: `fill` gets the
    /// file, and the store's directory that it is on the disk of.
    ///
    /// # Errors
    /// Those of `fill`, and when what it has left is not this layer, or cannot be kept. Nothing is left then.
    pub fn add_by<E: From<Error>>(
        self,
        fill: impl FnOnce(&File, &Directory) -> Result<(), E>,
    ) -> Result<StoredLayer, E> {
        let layers = &self.store.layers;
        let mut new = NewFile::new(layers)?;
        fill(new.file(), layers)?;
        new.publish(&self.diff_id)?;
        let added = self.store.added(&self.diff_id);
        if let Err(Error::Broken { .. }) = added {
            let removed = layers.remove(&self.diff_id.hex());
            removed.map_err(Error::io(layers.path()))?;
        }
        Ok(added?)
    }
}

/// Reads a layer's archive, compressed or not, into a file of the store that has no name yet. `rest` is an empty file that
/// is needed meanwhile. This opens nothing, and knows no store.
///
/// # Errors
/// When it is another one, no layer, more than the limits let it be, or cannot be written.
pub fn fill_layer(
    archive: impl Read,
    expected: &Digest,
    limits: &Limits,
    file: File,
    rest: File,
) -> Result<(), Error> {
    let read = Filled::new(archive, limits, file, rest);
    let read = read.map_err(|source| Error::Layer {
        diff_id: expected.to_string(),
        source,
    })?;
    let (expected, found) = (*expected, Digest(read.layer.digest));
    match found == expected {
        true => read.seal(),
        false => Err(Error::OtherLayer { expected, found }),
    }
}

/// A layer that has been read, and is not sealed.
struct Filled {
    blocks: Blocks,
    layer: Layer,
    rest: File,
}

impl Filled {
    fn new(
        archive: impl Read,
        limits: &Limits,
        file: File,
        rest: File,
    ) -> Result<Self, layer::Error> {
        let mut blob = Blob::new(Blocks::new(file), 0, MAX_BLOCKS);
        let mut rest = Rest::new(BufWriter::new(rest), MAX_REST);
        let layer = layer::read(archive, &mut blob, &mut rest, limits)?;
        let rest = rest.finish().map_err(layer::Error::Rest)?;
        let rest = rest.into_inner();
        let mut rest = rest.map_err(|error| layer::Error::Rest(error.into_error()))?;
        rest.rewind().map_err(layer::Error::Rest)?;
        let blocks = blob.into_inner();
        Ok(Self {
            blocks,
            layer,
            rest,
        })
    }

    fn seal(mut self) -> Result<(), Error> {
        let digest = Digest(self.layer.digest);
        let what = (digest, self.layer.length);
        let changes = self.layer.changes.to_bytes();
        let sealed = self
            .blocks
            .seal(Kind::Layer, what, &changes, &mut self.rest);
        sealed.map_err(|source| Error::Unwritten { digest, source })
    }
}

impl Store {
    /// A layer, if it is there.
    ///
    /// # Errors
    /// When it is broken, or cannot be read.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<StoredLayer>, Error> {
        match Sealed::open(&self.layers, Kind::Layer, diff_id)? {
            Found::Nothing => Ok(None),
            Found::Whole(sealed) => Ok(Some(StoredLayer::new(sealed))),
            Found::Broken(why) => Err(Error::Broken {
                what: "layer",
                digest: *diff_id,
                why: why.into(),
            }),
        }
    }

    /// Begins to add a layer. If somebody else is about to, waits for them first, however long; whoever is killed has lost
    /// that right. One that is broken is to be added again.
    ///
    /// # Errors
    /// When the store cannot be used, or this process has been asked to end meanwhile.
    pub fn begin_layer(&self, diff_id: &Digest) -> Result<Begun<'_>, Error> {
        let turn = self.turn(diff_id)?;
        match self.layer(diff_id) {
            Ok(Some(there)) => Ok(Begun::There(there)),
            Ok(None) | Err(Error::Broken { .. }) => Ok(Begun::Yours(LayerAddition {
                store: self,
                diff_id: *diff_id,
                _turn: turn,
            })),
            Err(error) => Err(error),
        }
    }

    /// Adds a layer from its archive, whatever its digest is.
    ///
    /// # Errors
    /// As [`LayerAddition::add`].
    pub fn add_layer(&self, archive: impl Read, limits: &Limits) -> Result<StoredLayer, Error> {
        let failed = Error::io(self.layers.path());
        let mut new = NewFile::new(&self.layers)?;
        let file = new.file().try_clone().map_err(&failed)?;
        let rest = unnamed(&self.layers).map_err(&failed)?;
        let read = Filled::new(archive, limits, file, rest).map_err(|source| Error::Layer {
            diff_id: "of this archive".into(),
            source,
        })?;
        let diff_id = Digest(read.layer.digest);
        match self.begin_layer(&diff_id)? {
            Begun::There(there) => Ok(there),
            Begun::Yours(_turn) => {
                read.seal()?;
                new.publish(&diff_id)?;
                self.added(&diff_id)
            }
        }
    }

    /// A layer that has just been added.
    fn added(&self, digest: &Digest) -> Result<StoredLayer, Error> {
        self.layer(digest)?.ok_or_else(|| Error::Broken {
            what: "layer",
            digest: *digest,
            why: "somebody has removed it".into(),
        })
    }
}

/// A length in bytes as blocks.
pub fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX)
}
