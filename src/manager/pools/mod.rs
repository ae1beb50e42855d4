//! Pools: VMs that were restored and stand still, until somebody takes one.
//!
//! A pool is a process, and three files in `pools` of the book: `NAME.lock`, which the process has locked as long as it lives;
//! `NAME.note`, what the pool is of; `NAME.socket`, where VMs are taken ([`kvmlet_control::Pool`]). Its VMs are their
//! supervisors' own, as any others: each ends with the channel that its supervisor has to the pool, or to whoever has taken it.
//!
//! One of an image has no process: its VMs are [instances](PooledInstances), paused, with supervisors of their own; whoever fills it has
//! its lock meanwhile.

mod clients;
mod error;
mod holder;
mod instances;
mod parked;

pub use error::PoolsError;
pub use holder::{Holder, Told};
pub use instances::PooledInstances;

use crate::locked::locked;
use crate::sealed;
use crate::{Book, Error, Moment, Name};
use kvmlet_control::{Pool, PoolError, PoolStatus};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

const POOLS: &str = "pools";
/// What is locked by who makes, lists or removes one: no name, so no pool.
const GATE: &str = "gate";
const LOCK: &str = ".lock";
const NOTE: &str = ".note";
const SOCKET: &str = ".socket";
/// No note is longer.
const NOTE_BYTES: u64 = 64 << 10;
/// How long a pool has to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its VMs have to be gone, beyond what it gives them itself.
const ENDING: Duration = Duration::from_secs(60);

/// What a pool is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNote {
    /// What it is called.
    pub name: Name,
    /// The snapshot, where it was when the pool was made; or the image.
    pub file: PathBuf,
    /// How many VMs are to be ready.
    pub size: u32,
    /// When it was made.
    pub made: Moment,
    /// Of one of an image: what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<PooledInstances>,
}

impl PoolNote {
    fn if_of_image(self) -> Option<Self> {
        self.instances.is_some().then_some(self)
    }
}

/// A pool that is noted, and how it is.
#[derive(Debug)]
pub struct PoolView {
    /// What is noted.
    pub note: PoolNote,
    /// How it is; none if its process has ended without having been told to, or does not answer.
    pub status: Option<PoolStatus>,
}

/// Where the pools of a book are.
#[derive(Debug)]
pub struct Pools(Directory);

/// A pool's name is its as long as somebody has this open, or what was made of it.
#[derive(Debug)]
pub struct PoolLock(File);

impl From<PoolLock> for OwnedFd {
    fn from(lock: PoolLock) -> Self {
        lock.0.into()
    }
}

impl Pools {
    /// Those of a book.
    ///
    /// # Errors
    /// When their place cannot be made.
    pub fn of(book: &Book) -> Result<Self, Error> {
        let around = book.directory();
        let made = around.subdirectory(POOLS);
        made.map(Self)
            .map_err(|error| Error::file(&around.path().join(POOLS))(error))
    }

    /// Where VMs of a pool are taken.
    pub fn socket(&self, name: &Name) -> PathBuf {
        self.0.path().join(format!("{name}{SOCKET}"))
    }

    /// Notes a pool, for the process that gets the lock. What another one of that name has left behind, whose process was killed, goes.
    ///
    /// # Errors
    /// [`PoolsError::Taken`], and when it cannot be noted.
    pub fn make(&self, note: &PoolNote) -> Result<PoolLock, PoolsError> {
        let _gate = locked(&self.0, GATE)?;
        let lock = self.lock(&note.name)?;
        // One of an image is there without a process.
        let is_free = |_: &PoolLock| {
            self.find(&note.name)
                .is_none_or(|it| it.instances.is_none())
        };
        let lock = lock.filter(is_free).ok_or_else(|| PoolsError::Taken {
            name: note.name.clone(),
        })?;
        self.remove_file(&note.name, SOCKET)?;
        self.write(note)?;
        Ok(lock)
    }

    fn write(&self, note: &PoolNote) -> Result<(), Error> {
        let name = format!("{}{NOTE}", note.name);
        let text = sealed::seal(note).map_err(io::Error::from);
        let written = text.and_then(|text| self.0.write(&name, &text));
        written.map_err(|error| Error::file(&self.0.path().join(name))(error))
    }

    /// What is noted of that name, if that can be believed.
    fn find(&self, name: &Name) -> Option<PoolNote> {
        let text = self.0.read(&format!("{name}{NOTE}"), NOTE_BYTES).ok()??;
        sealed::open::<PoolNote>(&text).ok()
    }

    /// A pool's lock; none if its process lives.
    fn lock(&self, name: &Name) -> Result<Option<PoolLock>, Error> {
        let name = format!("{name}{LOCK}");
        let take = || loop {
            let file = self.0.open_or_make(&name)?;
            if !lock::try_acquire(&file)? {
                return Ok(None);
            }
            // Whoever had it may have removed the file after it was opened here.
            if file.metadata()?.nlink() > 0 {
                return Ok(Some(PoolLock(file)));
            }
        };
        let taken: io::Result<_> = take();
        taken.map_err(|error| Error::file(&self.0.path().join(&name))(error))
    }

    /// All of them, by their names.
    ///
    /// # Errors
    /// When they cannot be listed. One whose note cannot be believed is left out.
    pub fn list(&self) -> Result<Vec<PoolView>, PoolsError> {
        let names = self.0.names().map_err(Error::file(self.0.path()))?;
        let names = names.iter().filter_map(|name| name.strip_suffix(NOTE));
        let mut names: Vec<Name> = names.filter_map(|name| name.parse().ok()).collect();
        names.sort();
        let notes = names.into_iter().filter_map(|name| self.find(&name));
        let view = |note: PoolNote| PoolView {
            status: match &note.instances {
                Some(instances) => Some(instances.status()),
                None => self.status(&note.name),
            },
            note,
        };
        Ok(notes.map(view).collect())
    }

    fn status(&self, name: &Name) -> Option<PoolStatus> {
        let mut pool = Pool::to(&self.socket(name)).ok()?;
        pool.status(PATIENCE).ok()
    }

    /// Whoever takes VMs of a pool.
    ///
    /// # Errors
    /// [`PoolsError::NotFound`], [`PoolsError::Dead`].
    pub fn connect(&self, name: &Name) -> Result<Pool, PoolsError> {
        Pool::to(&self.socket(name)).map_err(|_| match self.is_noted(name) {
            false => PoolsError::NotFound { name: name.clone() },
            true => PoolsError::Dead { name: name.clone() },
        })
    }

    fn is_noted(&self, name: &Name) -> bool {
        let note = self.0.read(&format!("{name}{NOTE}"), NOTE_BYTES);
        note.is_ok_and(|note| note.is_some())
    }

    /// Has a pool end, with all VMs that nobody has taken, and forgets it. When this returns they are gone.
    ///
    /// # Errors
    /// [`PoolsError::NotFound`], and when it does not end.
    pub fn remove(&self, name: &Name) -> Result<(), PoolsError> {
        if !self.is_noted(name) {
            return Err(PoolsError::NotFound { name: name.clone() });
        }
        let failed = |source: PoolError| PoolsError::Refused {
            name: name.clone(),
            source,
        };
        if let Ok(pool) = Pool::to(&self.socket(name)) {
            pool.end(ENDING).map_err(failed)?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let _gate = locked(&self.0, GATE)?;
            match self.lock(name)? {
                Some(_lock) => return Ok(self.forget(name)?),
                // It has told that it ends, and is about to.
                None if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                // Or another one of that name was made meanwhile.
                None => return Err(failed(PoolError::Late(PATIENCE))),
            }
        }
    }

    /// Takes out of the book what has ended, by whoever has its lock.
    fn forget(&self, name: &Name) -> Result<(), Error> {
        [SOCKET, NOTE, LOCK]
            .iter()
            .try_for_each(|what| self.remove_file(name, what))
    }

    fn remove_file(&self, name: &Name, what: &str) -> Result<(), Error> {
        let name = format!("{name}{what}");
        let removed = self.0.remove(&name);
        removed.map_err(|error| Error::file(&self.0.path().join(name))(error))
    }

    /// What is noted of a pool, if it is one of an image.
    ///
    /// # Errors
    /// [`PoolsError::NotFound`].
    pub fn of_image(&self, name: &Name) -> Result<Option<PoolNote>, PoolsError> {
        let found = self.find(name);
        let found = found.ok_or_else(|| PoolsError::NotFound { name: name.clone() });
        Ok(found?.if_of_image())
    }

    /// Changes what is noted of one of an image. Nobody else does meanwhile.
    ///
    /// # Errors
    /// [`PoolsError::NotFound`], and when it cannot be noted.
    pub fn change<T>(
        &self,
        name: &Name,
        change: impl FnOnce(&mut PoolNote) -> T,
    ) -> Result<T, PoolsError> {
        let _gate = locked(&self.0, GATE)?;
        let found = self.find(name).and_then(PoolNote::if_of_image);
        let mut note = found.ok_or_else(|| PoolsError::NotFound { name: name.clone() })?;
        let before = note.clone();
        let changed = change(&mut note);
        if note != before {
            self.write(&note)?;
        }
        Ok(changed)
    }

    /// For whoever fills one of an image: none if somebody does.
    ///
    /// # Errors
    /// When there can be no lock.
    pub fn try_fill(&self, name: &Name) -> Result<Option<PoolLock>, PoolsError> {
        let _gate = locked(&self.0, GATE)?;
        Ok(self.lock(name)?)
    }

    /// Forgets one of an image, and returns what it had; none if there is no such pool.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn forget_image(&self, name: &Name) -> Result<Option<PooledInstances>, PoolsError> {
        let _gate = locked(&self.0, GATE)?;
        let Some(note) = self.find(name).and_then(PoolNote::if_of_image) else {
            return Ok(None);
        };
        self.remove_file(name, NOTE)?;
        self.remove_file(name, LOCK)?;
        Ok(note.instances)
    }

    /// Serves a pool of that lock, in this process, until it is told to end; then it is forgotten.
    ///
    /// # Errors
    /// When it cannot be served, or none of its VMs could be restored at first.
    pub fn hold(
        &self,
        name: &Name,
        lock: PoolLock,
        holder: Holder,
        told: &mut dyn FnMut(Told<'_>),
    ) -> Result<(), PoolsError> {
        let path = self.socket(name);
        let listener = holder::listen(&self.0, &format!("{name}{SOCKET}"));
        let listener = listener.map_err(|error| Error::file(&path)(error))?;
        let served = holder.serve(&listener, told);
        drop(listener);
        // No gate is waited for: who has the lock is alone with these files.
        let forgotten = self.forget(name);
        drop(lock);
        served.map_err(|error: io::Error| Error::file(&path)(error))?;
        Ok(forgotten?)
    }
}

impl PoolLock {
    /// The one that this process was started with.
    ///
    /// # Errors
    /// When it is not locked by whoever has started this process.
    pub fn inherited(file: OwnedFd) -> io::Result<Self> {
        match lock::try_acquire(&file)? {
            true => Ok(Self(file.into())),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

#[cfg(test)]
mod tests;
