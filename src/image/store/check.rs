//! Whether all that the store has is as it was added.

use super::images::{Opened, digests_in};
use super::names::Names;
use super::{Error, Store};
use crate::Digest;
use crate::reference::Reference;
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// What a check has found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// How many layers are as they should be.
    pub layers: usize,
    /// How many images are.
    pub images: usize,
    /// The others.
    pub broken: Vec<Broken>,
}

/// What is not as it should be.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The image's id, or a layer's digest.
    pub digest: Digest,
    /// What images are called that it concerns.
    pub names: Vec<Reference>,
    /// In a line.
    pub why: String,
}

impl Store {
    /// Reads all that is there and compares it with its digests: of each layer its archive is made again. What is broken is
    /// taken away, so that whoever adds it again mends the images that have it; a VM that runs on it has it still.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn check(&self) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        let (names, whole) = self.read_names()?;
        if !whole {
            let _gate = self.gate()?;
            let (names, whole) = self.read_names()?;
            if !whole {
                log::warn!("{}", Error::Names(self.directory.path().into()));
                self.write_names(&names)?;
            }
        }
        for digest in digests_in(&self.layers)? {
            // Whoever is adding it has checked it.
            let Some(_turn) = self.turn_at_once(&digest)? else {
                continue;
            };
            match self.check_layer(&digest)? {
                Verdict::Gone => {}
                Verdict::Whole => checked.layers += 1,
                Verdict::Broken(why) => {
                    let failed = Error::io(self.layers.path());
                    self.layers.remove(&digest.hex()).map_err(failed)?;
                    let names = self.names_with(&digest, &names)?;
                    checked.broken.push(Broken { digest, names, why });
                }
            }
        }
        for id in self.image_ids()? {
            let Some(_turn) = self.turn_at_once(&id)? else {
                continue;
            };
            match self.check_image(&id)? {
                Verdict::Gone => {}
                Verdict::Whole => checked.images += 1,
                Verdict::Broken(why) => checked.broken.push(Broken {
                    digest: id,
                    names: names.of(&id),
                    why,
                }),
            }
        }
        self.sweep()?;
        Ok(checked)
    }

    fn check_layer(&self, digest: &Digest) -> Result<Verdict, Error> {
        let layer = match self.layer(digest) {
            Ok(Some(layer)) => layer,
            Ok(None) => return Ok(Verdict::Gone),
            Err(Error::Broken { why, .. }) => return Ok(Verdict::Broken(why)),
            Err(error) => return Err(error),
        };
        if !layer.sealed().is_whole(0)? {
            return Ok(Verdict::Broken(
                "the content of its files has changed".into(),
            ));
        }
        match layer.changes() {
            Err(Error::Broken { why, .. }) => return Ok(Verdict::Broken(why)),
            other => drop(other?),
        }
        if !layer.sealed().is_whole(2)? {
            return Ok(Verdict::Broken(
                "the rest of its archive has changed".into(),
            ));
        }
        let mut archive = layer.archive()?;
        let (mut sum, mut piece) = (Sha256::new(), vec![0; 256 << 10]);
        loop {
            match archive.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => sum.update(&piece[..count]),
                Err(error) => {
                    return Ok(Verdict::Broken(format!(
                        "its archive cannot be read: {error}"
                    )));
                }
            }
        }
        Ok(match Digest(sum.finalize().into()) == *digest {
            true => Verdict::Whole,
            false => Verdict::Broken("its archive has changed".into()),
        })
    }

    fn check_image(&self, id: &Digest) -> Result<Verdict, Error> {
        let broken = |why: String| {
            let failed = Error::io(self.images.path());
            self.images.remove(&id.hex()).map_err(failed)?;
            Ok(Verdict::Broken(why))
        };
        let opened = match self.open_image(id) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(Verdict::Gone),
            Err(Error::Broken { why, .. }) => return broken(why),
            Err(Error::Config(error)) => return broken(error.to_string()),
            Err(error) => return Err(error),
        };
        if !opened.sealed.is_whole(0)? {
            return broken("its file system has changed".into());
        }
        match self.check_parts(id, &opened.parts) {
            // It is mended by the layer.
            Err(error @ Error::Incomplete { .. }) => Ok(Verdict::Broken(error.to_string())),
            other => other.map(|()| Verdict::Whole),
        }
    }

    /// What images with a layer are called.
    fn names_with(&self, layer: &Digest, names: &Names) -> Result<Vec<Reference>, Error> {
        let mut found = Vec::new();
        for id in self.image_ids()? {
            if let Ok(Some(Opened { parts, .. })) = self.open_image(&id)
                && parts.iter().any(|part| part.0 == *layer)
            {
                found.extend(names.of(&id));
            }
        }
        Ok(found)
    }
}

enum Verdict {
    Gone,
    Whole,
    Broken(String),
}
