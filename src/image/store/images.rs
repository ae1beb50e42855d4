//! Images: made of layers, found by names and ids.

use super::file::{Found, Kind, NewFile, Seal, Sealed};
use super::layers::blocks;
use super::{Error, Extent, Image, Lease, Store, StoredImage, StoredLayer};
use crate::Digest;
use crate::config::ImageConfig;
use crate::erofs;
use crate::layer::MAX_FILES;
use crate::merge::Merged;
use crate::packed::{Packed, Unpacked};
use crate::reference::Reference;
use std::path::Path;

/// A layer as an image was made of it: its digest, and the length and checksum of its data.
pub type Part = (Digest, (u64, u32));

/// An image's file, opened.
#[derive(Debug)]
pub struct Opened {
    /// Without names.
    pub image: Image,
    /// The layers that it was made of.
    pub parts: Vec<Part>,
    /// The file, in use.
    pub sealed: Sealed,
}

fn write_parts(parts: &[Part]) -> Vec<u8> {
    let mut out = Packed::default();
    for (digest, (length, checksum)) in parts {
        out.text(&digest.0);
        out.number(*length);
        out.number((*checksum).into());
    }
    out.0
}

fn read_parts(bytes: &[u8]) -> Option<Vec<Part>> {
    let mut from = Unpacked(bytes);
    let mut parts = Vec::new();
    while !from.0.is_empty() {
        let digest = from.text()?.try_into().ok()?;
        parts.push((Digest(digest), (from.number()?, from.small()?)));
    }
    Some(parts)
}

impl Store {
    /// Adds an image of layers that are there, the lowest first, and gives it names, which other images may have had.
    /// One that is there gets the names.
    ///
    /// # Errors
    /// When the configuration is none, or is not of these layers; or these do not fit on each other.
    pub fn add_image(
        &self,
        json: &[u8],
        layers: &[StoredLayer],
        names: &[Reference],
    ) -> Result<StoredImage, Error> {
        let config = ImageConfig::parse(json)?;
        let given: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        if given != config.layers {
            let named = config.layers.len();
            let given = given.len();
            return Err(Error::OtherLayers { named, given });
        }
        let id = Digest::of(json);
        let turn = self.turn(&id)?;
        let parts = layers
            .iter()
            .map(|layer| (layer.diff_id, layer.sealed().seal.data()));
        let parts: Vec<Part> = parts.collect();
        let opened = match self.open_image(&id) {
            // Of the same layers as they are now.
            Ok(Some(opened)) if opened.parts == parts => opened,
            Ok(_) | Err(Error::Broken { .. }) => {
                self.write_image(&id, json, layers, &parts)?;
                self.open_image(&id)?.ok_or_else(|| removed(&id))?
            }
            Err(error) => return Err(error),
        };
        drop(turn);
        if !names.is_empty() {
            self.name(&id, names)?;
        }
        let mut image = opened.image;
        image.names = self.names()?.of(&id);
        let lease = Lease(opened.sealed.file);
        Ok(StoredImage { image, lease })
    }

    fn write_image(
        &self,
        id: &Digest,
        json: &[u8],
        layers: &[StoredLayer],
        parts: &[Part],
    ) -> Result<(), Error> {
        let mut merged = Merged::new(MAX_FILES);
        for layer in layers {
            merged.add(&layer.changes()?)?;
        }
        let tree = merged.into_tree();
        let lengths: Vec<_> = layers
            .iter()
            .map(|layer| blocks(layer.data_length))
            .collect();
        let identity: Vec<u8> = layers.iter().flat_map(|layer| layer.diff_id.0).collect();
        let metadata = erofs::Image::new(&tree, &lengths, &identity)?;
        let mut file = NewFile::new(&self.images)?;
        let mut out = file.blocks()?;
        metadata.write(&mut out)?;
        let parts = write_parts(parts);
        let sealed = out.seal(Kind::Image, (*id, 0), json, &mut &parts[..]);
        sealed.map_err(Error::io(self.images.path()))?;
        file.publish(id)
    }

    /// An image's file by its id, without names.
    pub(super) fn open_image(&self, id: &Digest) -> Result<Option<Opened>, Error> {
        let broken = |why: &str| Error::Broken {
            what: "image",
            digest: *id,
            why: why.into(),
        };
        let sealed = match Sealed::open(&self.images, Kind::Image, id)? {
            Found::Nothing => return Ok(None),
            Found::Broken(why) => return Err(broken(why)),
            Found::Whole(sealed) => sealed,
        };
        let json = sealed.text(1)?.filter(|json| Digest::of(json) == *id);
        let json = json.ok_or_else(|| broken("its configuration has changed"))?;
        let parts = sealed.text(2)?.and_then(|text| read_parts(&text));
        let parts = parts.ok_or_else(|| broken("the list of its layers has changed"))?;
        let config = ImageConfig::parse(&json)?;
        let extents = self.extents(&sealed.path, &sealed.seal, &parts);
        let image = Image {
            id: *id,
            names: Vec::new(),
            config,
            json,
            extents,
        };
        Ok(Some(Opened {
            image,
            parts,
            sealed,
        }))
    }

    fn extents(&self, image: &Path, seal: &Seal, parts: &[Part]) -> Vec<Extent> {
        let metadata = (image.to_path_buf(), seal.data().0);
        let layers = parts.iter().map(|(digest, (length, _))| {
            let path = self.layers.path().join(digest.hex());
            (path, *length)
        });
        let all = std::iter::once(metadata).chain(layers);
        all.filter(|(_, length)| *length > 0)
            .map(|(path, length)| Extent {
                path,
                offset: 0,
                length,
            })
            .collect()
    }

    /// Whether the layers are those that an image was made of.
    pub(super) fn check_parts(&self, id: &Digest, parts: &[Part]) -> Result<(), Error> {
        for (digest, data) in parts {
            let incomplete = |why| Error::Incomplete {
                image: *id,
                layer: *digest,
                why,
            };
            match self.layer(digest) {
                Ok(Some(layer)) if layer.sealed().seal.data() == *data => {}
                Ok(Some(_)) => return Err(incomplete("not as it was when the image was made")),
                Ok(None) => return Err(incomplete("missing")),
                Err(Error::Broken { .. }) => return Err(incomplete("broken")),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The ids of all images, sorted.
    pub(super) fn image_ids(&self) -> Result<Vec<Digest>, Error> {
        digests_in(&self.images)
    }

    /// All images, sorted by id.
    ///
    /// # Errors
    /// When the store cannot be read. Images that are broken are left out, and told in the log.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        let names = self.names()?;
        let mut images = Vec::new();
        for id in self.image_ids()? {
            match self.open_image(&id) {
                Ok(None) => {}
                Ok(Some(Opened { mut image, .. })) => {
                    image.names = names.of(&id);
                    images.push(image);
                }
                Err(error @ (Error::Broken { .. } | Error::Config(_))) => log::warn!("{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    /// The image that a name, an id or the beginning of one means.
    ///
    /// # Errors
    /// When an id's beginning is that of several, or what is there is broken.
    pub fn find(&self, text: &str) -> Result<Option<StoredImage>, Error> {
        let Some(id) = self.resolve(text)? else {
            return Ok(None);
        };
        let Some(opened) = self.open_image(&id)? else {
            return Ok(None);
        };
        self.check_parts(&id, &opened.parts)?;
        let mut image = opened.image;
        image.names = self.names()?.of(&id);
        let lease = Lease(opened.sealed.file);
        Ok(Some(StoredImage { image, lease }))
    }

    /// The id that a text means; names come first.
    pub(super) fn resolve(&self, text: &str) -> Result<Option<Digest>, Error> {
        if let Ok(name) = Reference::parse(text) {
            let names = self.names()?.0;
            let found = match name.digest() {
                Some(digest) => names.get(&name.at_digest(*digest)),
                None => names.get(&name),
            };
            if let Some(id) = found {
                return Ok(Some(*id));
            }
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f');
        if hex.is_empty() || !hex.bytes().all(is_hex) {
            return Ok(None);
        }
        let mut all = self.image_ids()?;
        all.retain(|id| id.hex().starts_with(hex));
        match &all[..] {
            [] => Ok(None),
            [id] => Ok(Some(*id)),
            several => Err(Error::Ambiguous {
                text: text.into(),
                count: several.len(),
            }),
        }
    }

    /// Gives an image another name, which another image may have had.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn tag(&self, id: &Digest, name: &Reference) -> Result<(), Error> {
        // It stays there until it has the name.
        let _image = self
            .open_image(id)?
            .ok_or_else(|| Error::NoImage(id.to_string()))?;
        self.name(id, std::slice::from_ref(name))
    }

    fn name(&self, id: &Digest, new: &[Reference]) -> Result<(), Error> {
        let _gate = self.gate()?;
        let mut names = self.names()?;
        let before = names.clone();
        for name in new {
            let key = match name.digest() {
                Some(digest) => name.at_digest(*digest),
                None => name.clone(),
            };
            names.0.insert(key, *id);
        }
        match names == before {
            true => Ok(()),
            false => self.write_names(&names),
        }
    }
}

fn removed(id: &Digest) -> Error {
    Error::Broken {
        what: "image",
        digest: *id,
        why: "somebody has removed it".into(),
    }
}

/// The files of a directory of the store, sorted.
pub fn digests_in(directory: &kvmlet_sys::directory::Directory) -> Result<Vec<Digest>, Error> {
    let names = directory.names().map_err(Error::io(directory.path()))?;
    let mut digests: Vec<_> = names
        .iter()
        .filter_map(|name| Digest::from_hex(name))
        .collect();
    digests.sort_unstable();
    Ok(digests)
}
