//! The book of instances: a directory with one of its own for each.
//!
//! - `lock`: locked (flock) by whoever makes, names or removes.
//! - `instances/ID/`: an [instance](crate::Instance).
//! - `names/NAME`: a symbolic link that says the id of who is called that. A name is in one place only, so no two
//!   instances have it; a link without an instance is nobody's.
//! - `pending/`: what is being made or removed. Whoever has the lock and finds something there finds what somebody has left
//!   who was killed.

mod names;
pub(crate) mod removal;

use crate::id::{InstanceId, is_beginning};
use crate::instance::{Asked, Instance, Owned, Turn, View};
use crate::locked::locked;
use crate::{Error, Name, place};
use kvmlet_sys::directory::Directory;
use names::Names;
use rustix::fs::{RenameFlags, renameat_with};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

const LOCK: &str = "lock";
const INSTANCES: &str = "instances";
const PENDING: &str = "pending";
const NAMES: &str = "names";

/// The instances of one user.
#[derive(Debug)]
pub struct Book {
    directory: Directory,
    instances: Arc<Directory>,
    pending: Directory,
    names: Names,
}

/// An entry of the book that cannot be read.
#[derive(Debug)]
pub struct Damaged {
    /// The id that its directory has.
    pub id: InstanceId,
    /// What it is called.
    pub name: Option<Name>,
    /// Why it cannot be read.
    pub error: Error,
}

/// All that is in the book.
#[derive(Debug, Default)]
pub struct Listing {
    /// What can be read, the newest first.
    pub instances: Vec<View>,
    /// What cannot.
    pub damaged: Vec<Damaged>,
}

/// The book, while nobody else changes it.
struct Locked<'a> {
    book: &'a Book,
    _lock: File,
}

impl Book {
    /// That of this process's user, made if it is not there.
    ///
    /// # Errors
    /// When there is no place for one, or there is one that cannot be trusted.
    pub fn of_user() -> Result<Self, Error> {
        Self::open(place::of_user()?)
    }

    /// The one in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// As [`of_user`](Self::of_user).
    pub fn at(path: &Path) -> Result<Self, Error> {
        Self::open(place::at(path)?)
    }

    fn open(directory: Directory) -> Result<Self, Error> {
        let own = |name: &str| {
            let made = directory.subdirectory(name);
            made.map_err(|error| Error::file(&directory.path().join(name))(error))
        };
        let (instances, pending, names) = (own(INSTANCES)?, own(PENDING)?, own(NAMES)?);
        Ok(Self {
            instances: Arc::new(instances),
            pending,
            names: Names::in_directory(names),
            directory,
        })
    }

    /// Where it is.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Makes an instance of that name, or of one that is found for it. What there is room for by the id in `asked` is
    /// settled here: it is a new one.
    ///
    /// # Errors
    /// When the name is taken, or the files cannot be written: nothing is left then.
    pub fn create(&self, name: Option<&Name>, asked: Asked) -> Result<(Instance, Name), Error> {
        let (instance, name, _) = self.create_in_turn(name, asked)?;
        Ok((instance, name))
    }

    /// The same for whoever starts it then: nobody else does before, or removes it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_in_turn(
        &self,
        name: Option<&Name>,
        asked: Asked,
    ) -> Result<(Instance, Name, Turn), Error> {
        let locked = self.locked()?;
        let id = asked.id.clone();
        // What fails is cleared away by the next who has the lock, and here at once.
        let made = locked.make(&asked);
        let made = made.and_then(|turn| Ok((locked.publish(name, &id)?, turn)));
        match made {
            Ok((name, turn)) => Ok((Instance::open(&self.instances, id)?, name, turn)),
            Err(error) => {
                locked.clear_pending();
                Err(error)
            }
        }
    }

    /// The instance that is called that: by its id, its name, or the beginning of its id, in this order.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, reference: &str) -> Result<Instance, Error> {
        Instance::open(&self.instances, self.resolve(reference)?)
    }

    /// Takes an instance, as [`Instance::own`] does, whose errors know no names.
    ///
    /// # Errors
    /// As that, by its name.
    pub fn own(&self, instance: &Instance) -> Result<Owned, Error> {
        let owned = instance.own();
        owned.map_err(|error| self.by_name(instance.id(), error))
    }

    /// An error about an instance in which that is called by its name, if it has one.
    pub fn by_name(&self, id: &InstanceId, mut error: Error) -> Error {
        if let Error::InUse { called, .. } | Error::RunsElsewhere { called, .. } = &mut error
            && let Ok(Some(name)) = self.name_of(id)
        {
            *called = name.to_string();
        }
        error
    }

    /// The id of what is called that.
    fn resolve(&self, reference: &str) -> Result<InstanceId, Error> {
        let not_found = || Error::NotFound {
            reference: reference.into(),
        };
        if let Ok(id) = InstanceId::try_from(reference.to_owned()) {
            return Ok(id);
        }
        if let Ok(name) = reference.parse::<Name>()
            && let Some(id) = self.names.holder(&name)?
            && self.has(&id)?
        {
            return Ok(id);
        }
        if !is_beginning(reference) {
            return Err(not_found());
        }
        let mut matching = self.ids()?;
        matching.retain(|id| id.as_str().starts_with(reference));
        match matching.len() {
            0 => Err(not_found()),
            1 => Ok(matching.swap_remove(0)),
            count => Err(Error::Ambiguous {
                reference: reference.into(),
                count,
            }),
        }
    }

    /// What an instance is called.
    ///
    /// # Errors
    /// When the names cannot be read.
    pub fn name_of(&self, id: &InstanceId) -> Result<Option<Name>, Error> {
        match self.names.noted(&self.instances, id)? {
            Some(name) => Ok(Some(name)),
            None => Ok(self.names.by_id()?.remove(id)),
        }
    }

    /// All instances, as they are now.
    ///
    /// # Errors
    /// When the book cannot be read. What cannot be read of single ones is told beside the others.
    pub fn list(&self) -> Result<Listing, Error> {
        let (mut names, ids) = {
            // A name that changes meanwhile would be seen twice, or not at all.
            let _locked = self.lock()?;
            (self.names.by_id()?, self.ids()?)
        };
        let mut listing = Listing::default();
        for id in ids {
            let name = names.remove(&id);
            let view = Instance::open(&self.instances, id.clone());
            match view.and_then(|instance| instance.view(name.clone())) {
                Ok(view) => listing.instances.push(view),
                // Somebody has removed it meanwhile.
                Err(_) if !self.has(&id)? => {}
                Err(error) => listing.damaged.push(Damaged { id, name, error }),
            }
        }
        let newest_first = |view: &View| std::cmp::Reverse((view.asked.created, view.id.clone()));
        listing.instances.sort_by_key(newest_first);
        Ok(listing)
    }

    /// Calls an instance by another name. Its old one, if it has one, is free then.
    ///
    /// # Errors
    /// When the name is taken, or there is no such instance: nothing has changed then.
    pub fn rename(&self, reference: &str, name: &Name) -> Result<InstanceId, Error> {
        let locked = self.locked()?;
        let id = self.resolve(reference)?;
        if !self.has(&id)? {
            let reference = reference.into();
            return Err(Error::NotFound { reference });
        }
        locked.free(name, Some(&id))?;
        match self.name_of(&id)? {
            Some(old) if old == *name => {}
            Some(old) => self.names.change(&old, name)?,
            None => self.names.give(name, &id)?,
        }
        self.names.write_down(&self.instances, &id, name);
        Ok(id)
    }

    /// Removes an instance that does not run, with all that is kept of it.
    ///
    /// # Errors
    /// When it cannot be removed. It is gone all the same once it is not in the book any more.
    pub fn remove(&self, owned: Owned) -> Result<(), Error> {
        self.locked()?.remove(owned.id())
    }

    /// Removes an entry that cannot be read, unless somebody does something with it.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_damaged(&self, reference: &str) -> Result<InstanceId, Error> {
        let locked = self.locked()?;
        let id = self.resolve(reference)?;
        let _lock = removal::own_unread(&self.instances, &id)?;
        locked.remove(&id)?;
        Ok(id)
    }

    fn has(&self, id: &InstanceId) -> Result<bool, Error> {
        match self.instances.stat_entry(Path::new(id.as_str())) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file(self.instances.path())(error)),
        }
    }

    fn ids(&self) -> Result<Vec<InstanceId>, Error> {
        let names = self.instances.names();
        let names = names.map_err(Error::file(self.instances.path()))?;
        Ok(names
            .into_iter()
            .filter_map(|name| InstanceId::try_from(name).ok())
            .collect())
    }

    fn lock(&self) -> Result<File, Error> {
        locked(&self.directory, LOCK)
    }

    /// Keeps others from changing the book, and clears away what those have left who were killed.
    fn locked(&self) -> Result<Locked<'_>, Error> {
        let locked = Locked {
            _lock: self.lock()?,
            book: self,
        };
        locked.clear_pending();
        Ok(locked)
    }
}

impl Locked<'_> {
    /// Makes the files of an instance where nobody sees them.
    fn make(&self, asked: &Asked) -> Result<Turn, Error> {
        let pending = &self.book.pending;
        let path = pending.path().join(asked.id.as_str());
        let made = pending.subdirectory(asked.id.as_str());
        let made = made.and_then(|directory| {
            Instance::make(&directory, asked)?;
            Turn::of_new(&directory)
        });
        made.map_err(Error::file(&path))
    }

    /// Gives it its name, and puts it into the book.
    fn publish(&self, name: Option<&Name>, id: &InstanceId) -> Result<Name, Error> {
        let Book {
            instances,
            pending,
            names,
            ..
        } = self.book;
        let name = match name {
            Some(name) => {
                self.free(name, None)?;
                name.clone()
            }
            None => self.any_name()?,
        };
        names.write_down(pending, id, &name);
        names.give(&name, id)?;
        let (file, new) = (id.as_str(), RenameFlags::NOREPLACE);
        renameat_with(pending, file, &**instances, file, new).map_err(|error| {
            // It would be nobody's, and so found by the next who wants it.
            let _ = names.take(&name);
            Error::file(&instances.path().join(file))(error.into())
        })?;
        Ok(name)
    }

    /// Makes sure that nobody but `except` has a name: one whose instance is gone has it no more.
    fn free(&self, name: &Name, except: Option<&InstanceId>) -> Result<(), Error> {
        let Some(holder) = self.book.names.holder(name)? else {
            // A link that says no id is nobody's either.
            return self.book.names.take(name);
        };
        if Some(&holder) == except {
            return Ok(());
        }
        match self.book.has(&holder)? {
            true => Err(Error::NameTaken {
                name: name.clone(),
                holder,
            }),
            false => self.book.names.take(name),
        }
    }

    /// A name that nobody has.
    fn any_name(&self) -> Result<Name, Error> {
        let mut attempt = 0;
        loop {
            let name = Name::generated(attempt).map_err(Error::file(self.book.directory.path()))?;
            match self.free(&name, None) {
                Ok(()) => return Ok(name),
                Err(Error::NameTaken { .. }) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes what this process alone does something with.
    fn remove(&self, id: &InstanceId) -> Result<(), Error> {
        let book = self.book;
        let name = book.name_of(id)?;
        removal::take_out(&book.instances, &book.pending, id)?;
        let freed = match name {
            Some(name) => book.names.take(&name),
            None => Ok(()),
        };
        self.clear_pending();
        freed
    }

    fn clear_pending(&self) {
        removal::clear(&self.book.pending);
    }
}

#[cfg(test)]
mod tests;
