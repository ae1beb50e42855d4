//! What nothing names and nobody uses: removed by name, or all of it.

use super::images::{Opened, digests_in};
use super::locks::Gate;
use super::names::Names;
use super::{Error, Image, Store};
use crate::Digest;
use crate::reference::Reference;
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock;
use kvmlet_sys::temporary::PREFIX;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are nobody's now.
    pub names: Vec<Reference>,
    /// Images, by their ids.
    pub images: Vec<Digest>,
    /// Layers.
    pub layers: Vec<Digest>,
    /// What is free now, in bytes.
    pub bytes: u64,
}

/// Whoever only looks at a file has it for less time than this, and whoever uses it for longer.
const PATIENCE: lock::Patience = lock::Patience {
    quiet: Duration::MAX,
    limit: Duration::from_millis(50),
};

/// Whether a name has a tag; what has none but a digest only tells where an image came from.
fn is_tag(name: &Reference) -> bool {
    name.tag().is_some()
}

fn is_same_repository(one: &Reference, other: &Reference) -> bool {
    (one.registry(), one.repository()) == (other.registry(), other.repository())
}

/// A file that nobody else has open as one in use, until this is dropped.
struct Alone {
    file: File,
    name: String,
}

impl Drop for Alone {
    fn drop(&mut self) {
        // A process that another thread is just starting has a copy for a moment.
        let _ = byte_lock::unlock_all(&self.file);
    }
}

impl Store {
    /// Takes a name from its image; and if an id is named, or no name is left, the image, with those of its layers that no
    /// other image has.
    ///
    /// # Errors
    /// When there is no such image. When it is in use, or `keep` says that somebody counts on it; with `force` its name goes
    /// all the same where it was named by that. When it is named by its id, has names in several repositories, and `force`
    /// does not say that all are to go.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        keep: &dyn Fn(&Image) -> bool,
    ) -> Result<Removed, Error> {
        let gate = self.gate()?;
        let none = || Error::NoImage(text.into());
        let id = self.resolve(text)?.ok_or_else(none)?;
        let mut names = self.names()?;
        let named = Reference::parse(text).ok();
        let named = named.filter(|name| names.0.get(&key(name)) == Some(&id));
        let going = going(&names, &id, named.as_ref(), force)?;
        let is_last = names.of(&id).len() == going.len();
        let mut removed = Removed::default();
        let alone = match is_last {
            true => match self.alone_with(&id, keep) {
                // Without its names it is as one whose names another has got.
                Err(Error::InUse(_)) if force && named.is_some() => None,
                other => other?,
            },
            false => None,
        };
        for name in going {
            names.0.remove(&name);
            removed.names.push(name);
        }
        if !removed.names.is_empty() {
            self.write_names(&names)?;
        }
        if let Some(alone) = alone {
            removed.bytes += alone.remove(&self.images)?;
            removed.images.push(id);
            self.remove_layers(&gate, &mut removed)?;
        }
        Ok(removed)
    }

    /// Removes images without tags, or with `all` those that nobody uses, and layers of no image. What is in use stays, what
    /// somebody is adding, and images of which `keep` says that somebody counts on them.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn prune(&self, all: bool, keep: &dyn Fn(&Image) -> bool) -> Result<Removed, Error> {
        let gate = self.gate()?;
        let mut removed = Removed::default();
        let mut names = self.names()?;
        for id in self.image_ids()? {
            let of_image = names.of(&id);
            if !all && of_image.iter().any(is_tag) {
                continue;
            }
            let Some(alone) = (match self.alone_with(&id, keep) {
                Err(Error::InUse(_)) => None,
                other => other?,
            }) else {
                continue;
            };
            names.0.retain(|_, image| *image != id);
            if !of_image.is_empty() {
                self.write_names(&names)?;
                removed.names.extend(of_image);
            }
            removed.bytes += alone.remove(&self.images)?;
            removed.images.push(id);
        }
        self.remove_layers(&gate, &mut removed)?;
        self.sweep()?;
        Ok(removed)
    }

    /// An image that nobody uses; nothing if it is not there.
    fn alone_with(
        &self,
        id: &Digest,
        keep: &dyn Fn(&Image) -> bool,
    ) -> Result<Option<Alone>, Error> {
        let Some(_turn) = self.turn_at_once(id)? else {
            return Err(Error::InUse(*id));
        };
        let image = match self.open_image(id) {
            Ok(None) => return Ok(None),
            Ok(Some(Opened { image, .. })) => {
                let names = self.names()?.of(id);
                Some(Image { names, ..image })
            }
            Err(Error::Broken { .. } | Error::Config(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(alone) = Alone::with(&self.images, id)? else {
            return Err(Error::InUse(*id));
        };
        // Who counts on it has noted that before letting go of it; so this comes after the lock.
        match image.is_some_and(|image| keep(&image)) {
            true => Err(Error::InUse(*id)),
            false => Ok(Some(alone)),
        }
    }

    /// Removes layers that no image has, that nobody uses, and that nobody is adding.
    fn remove_layers(&self, _gate: &Gate, removed: &mut Removed) -> Result<(), Error> {
        let Some(wanted) = self.wanted_layers()? else {
            return Ok(());
        };
        for digest in digests_in(&self.layers)? {
            if wanted.contains(&digest) {
                continue;
            }
            let Some(_turn) = self.turn_at_once(&digest)? else {
                continue;
            };
            if let Some(alone) = Alone::with(&self.layers, &digest)? {
                // Whoever had it until now may have made an image of it, and been killed.
                match self.wanted_layers()? {
                    Some(wanted) if !wanted.contains(&digest) => {}
                    _ => continue,
                }
                removed.bytes += alone.remove(&self.layers)?;
                removed.layers.push(digest);
            }
        }
        Ok(())
    }

    /// The layers of images; nothing if that is not known of one.
    fn wanted_layers(&self) -> Result<Option<BTreeSet<Digest>>, Error> {
        let mut wanted = BTreeSet::new();
        for id in self.image_ids()? {
            match self.open_image(&id) {
                Ok(None) => {}
                Ok(Some(opened)) => wanted.extend(opened.parts.iter().map(|part| part.0)),
                Err(error @ (Error::Broken { .. } | Error::Config(_))) => {
                    log::warn!("layers stay as long as it is not known whose they are: {error}");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(wanted))
    }

    /// Removes what killed processes have left, if nobody is at work.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        for directory in [&self.layers, &self.images, &self.directory] {
            let failed = Error::io(directory.path());
            let mut left = directory.names().map_err(&failed)?;
            left.retain(|name| name.starts_with(PREFIX));
            if left.is_empty() {
                continue;
            }
            let Some(_turns) = self.all_turns()? else {
                return Ok(());
            };
            for name in left {
                directory.remove(&name).map_err(&failed)?;
            }
        }
        Ok(())
    }
}

/// As a name is in the table.
fn key(name: &Reference) -> Reference {
    match name.digest() {
        Some(digest) => name.at_digest(*digest),
        None => name.clone(),
    }
}

/// The names that go: the one that was named, with the digests of its repository when that has no other tag; or all.
fn going(
    names: &Names,
    id: &Digest,
    named: Option<&Reference>,
    force: bool,
) -> Result<Vec<Reference>, Error> {
    let all = names.of(id);
    let Some(named) = named.map(key) else {
        let mut repositories: Vec<_> = all.iter().map(Reference::familiar_name).collect();
        repositories.dedup();
        let tags = all.iter().filter(|name| is_tag(name)).count();
        return match tags > 1 && repositories.len() > 1 && !force {
            true => Err(Error::ManyNames {
                id: *id,
                names: tags,
            }),
            false => Ok(all),
        };
    };
    let mut others = all.iter().filter(|name| is_tag(name) && **name != named);
    let is_last_tag = is_tag(&named) && !others.any(|other| is_same_repository(other, &named));
    let goes = |name: &Reference| {
        *name == named || is_last_tag && !is_tag(name) && is_same_repository(name, &named)
    };
    Ok(all.into_iter().filter(goes).collect())
}

impl Alone {
    /// Nothing if somebody uses the file, or it is gone.
    fn with(directory: &Directory, digest: &Digest) -> Result<Option<Self>, Error> {
        let name = digest.hex();
        let failed = Error::io(directory.path());
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = match openat(directory, &*name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(|error| failed(error.into()))?.into(),
        };
        let attempt = || match byte_lock::try_lock_all(&file, false) {
            Ok(false) => None,
            other => Some(other.map(drop)),
        };
        let is_alone = match lock::wait(PATIENCE, attempt, || ())? {
            None => false,
            Some(locked) => locked.map(|()| true).map_err(&failed)?,
        };
        Ok(is_alone.then_some(Self { file, name }))
    }

    /// Removes the file, and says how long it was.
    fn remove(self, directory: &Directory) -> Result<u64, Error> {
        let failed = Error::io(directory.path());
        let length = self.file.metadata().map_err(&failed)?.len();
        directory.remove(&self.name).map_err(&failed)?;
        Ok(length)
    }
}
