//! Notes of who has what: a directory with a lock, and in it a file for each owner.
//!
//! An owner's file is locked as long as the owner lives. The lock ends with the process, however that ends; so
//! a file that can be locked is left over, and what it names can be cleared by whoever comes next.

use crate::state::runtime::RuntimeDirectory;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::interrupt::Interrupted;
use kvmlet_sys::lock::{self, Failure, Holder, PATIENCE, Patience};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the names of owners' files end with.
const EXTENSION: &str = ".claim";
const LOCK: &str = "lock";
/// No note is longer.
const MAX_BYTES: u64 = 1 << 20;

/// A directory or file of notes cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory that cannot be used.
    #[error("cannot use `{}`, where kvmlet notes what VMs have", .path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody has locked all others out.
    #[error(
        "{} has held the lock `{}` for {} s",
        holder.as_ref().map_or("a process".into(), Holder::to_string), path.display(), PATIENCE.limit.as_secs()
    )]
    Busy {
        /// The lock.
        path: PathBuf,
        /// Who has it, where that can be told.
        holder: Option<Holder>,
    },
    /// It was told to give up while it waited for the lock.
    #[error(transparent)]
    Interrupted(Interrupted),
}

impl Error {
    fn of(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.into(),
            source,
        }
    }

    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::File { .. } | Self::Interrupted(_) => None,
            Self::Busy { path, holder } => Some(match holder {
                Some(holder) => format!("if it does not go on, end it: `kill {}`", holder.pid),
                None => format!("`fuser {}` tells which one", path.display()),
            }),
        }
    }
}

/// A directory of notes, locked against other processes until this value is dropped. `R` is what a note says.
pub(crate) struct Claims<R> {
    directory: Arc<Directory>,
    _lock: File,
    notes: PhantomData<R>,
}

/// A note that this process holds. Dropping it lets go of it, but leaves the file to be found.
pub(crate) struct Claim<R> {
    directory: Arc<Directory>,
    name: String,
    _lock: File,
    pub record: R,
}

/// Does an owner live who holds a note?
struct Held(bool);

/// A note that nobody holds, by its name, with what could be read of it.
pub(crate) type Leftover<R> = (String, Option<R>);

impl<R: Serialize + DeserializeOwned> Claims<R> {
    /// Opens a directory of notes, which is made if it is not there, and waits for its lock.
    pub fn lock(runtime: &RuntimeDirectory, name: &str) -> Result<Self, Error> {
        Self::lock_within(runtime, name, PATIENCE)
    }

    /// The same without waiting: [`Error::Busy`] where somebody has the lock.
    pub fn lock_at_once(runtime: &RuntimeDirectory, name: &str) -> Result<Self, Error> {
        Self::lock_within(runtime, name, lock::AT_ONCE)
    }

    fn lock_within(
        runtime: &RuntimeDirectory,
        name: &str,
        patience: Patience,
    ) -> Result<Self, Error> {
        let directory = runtime.subdirectory(name);
        Self::locked(
            directory.map_err(Error::of(&runtime.path().join(name)))?,
            patience,
        )
    }

    /// The same, unless there is no such directory yet.
    pub fn lock_existing_at_once(
        runtime: &RuntimeDirectory,
        name: &str,
    ) -> Result<Option<Self>, Error> {
        match runtime.existing_subdirectory(name) {
            Ok(directory) => Self::locked(directory, lock::AT_ONCE).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::of(&runtime.path().join(name))(error)),
        }
    }

    fn locked(directory: Directory, patience: Patience) -> Result<Self, Error> {
        Self::locked_again(Arc::new(directory), patience)
    }

    fn locked_again(directory: Arc<Directory>, patience: Patience) -> Result<Self, Error> {
        let path = directory.path().join(LOCK);
        let lock = directory.open_or_make(LOCK).map_err(Error::of(&path))?;
        lock::acquire(&lock, &path, patience).map_err(|failure| match failure {
            Failure::Io(error) => Error::of(&path)(error),
            Failure::Interrupted(interrupted) => Error::Interrupted(interrupted),
            Failure::Busy { holder } => {
                let path = path.clone();
                Error::Busy { path, holder }
            }
        })?;
        Ok(Self {
            directory,
            _lock: lock,
            notes: PhantomData,
        })
    }

    /// The directory, for what else is to be remembered there.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What went wrong with something else in there.
    pub fn failed(&self, error: io::Error) -> Error {
        Error::of(self.directory.path())(error)
    }

    /// All notes: those whose owners live, and those left over.
    pub fn all(&self) -> Result<(Vec<R>, Vec<Leftover<R>>), Error> {
        let failed = Error::of(self.directory.path());
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        let mut text = Vec::with_capacity(4096);
        for file_name in self.directory.names().map_err(&failed)? {
            let Some(name) = file_name.strip_suffix(EXTENSION) else {
                continue;
            };
            match self.look(&file_name, &mut text)? {
                None => {}
                Some((record, Held(true))) => live.extend(record),
                Some((record, Held(false))) => stale.push((name.into(), record)),
            }
        }
        Ok((live, stale))
    }

    /// The note of this name, if there is one and nobody holds it.
    pub fn leftover(&self, name: &str) -> Result<Option<Leftover<R>>, Error> {
        let looked = self.look(&file_name(name), &mut Vec::new())?;
        Ok(looked.and_then(|(record, Held(held))| (!held).then(|| (name.into(), record))))
    }

    /// What can be read of a note, if it is there; `text` is room to read it to.
    fn look(&self, name: &str, text: &mut Vec<u8>) -> Result<Option<(Option<R>, Held)>, Error> {
        let failed = Error::of(self.directory.path());
        let file = match self.directory.open_existing(name) {
            Ok(file) => file,
            // Owners that end remove their files without waiting for the directory. (And no owner makes links.)
            Err(error)
                if [Some(libc::ENOENT), Some(libc::ELOOP)].contains(&error.raw_os_error()) =>
            {
                return Ok(None);
            }
            // A claim that is not seen must not count as none.
            Err(error) => return Err(failed(error)),
        };
        text.clear();
        let read = (&file).take(MAX_BYTES).read_to_end(text);
        let record = read.ok().and_then(|_| serde_json::from_slice(text).ok());
        let is_free = lock::try_acquire(&file).map_err(failed)?;
        Ok(Some((record, Held(!is_free))))
    }

    /// Is there a note that nobody holds? At most as many as that are looked at, others each time; of those that are to be
    /// `left_out` none.
    pub fn has_leftover(
        &self,
        most: usize,
        left_out: impl Fn(&str) -> bool,
    ) -> Result<bool, Error> {
        let failed = Error::of(self.directory.path());
        let mut names = self.directory.names().map_err(&failed)?;
        names.retain(|name| {
            let name = name.strip_suffix(EXTENSION);
            name.is_some_and(|name| !left_out(name))
        });
        let first = match names.len() > most {
            // Processes have numbers one after the other.
            true => std::process::id() as usize * most % names.len(),
            false => 0,
        };
        let all = names.iter().cycle().skip(first).take(names.len().min(most));
        for name in all {
            match self.directory.open_existing(name).map(lock::try_acquire) {
                Ok(Ok(false)) => {}
                Ok(Err(error)) => return Err(failed(error)),
                Ok(Ok(true)) => return Ok(true),
                // Gone just now, or nothing that is opened: whoever looks at all of them says what is wrong.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Notes something under a name that no living owner has.
    #[cfg(test)]
    pub fn claim(&self, name: &str, record: R) -> Result<Claim<R>, Error> {
        let path = || self.directory.path().join(file_name(name));
        self.try_claim(name, record)
            .map_err(|error| Error::of(&path())(error))
    }

    /// The same; what the kernel says.
    pub fn try_claim(&self, name: &str, record: R) -> io::Result<Claim<R>> {
        let file = self.directory.open_or_make(&file_name(name))?;
        if !lock::try_acquire(&file)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // What says nothing, or half of it, is nobody's.
        write(&file, &record).inspect_err(|_| remove(&self.directory, name))?;
        Ok(Claim {
            directory: self.directory.clone(),
            name: name.into(),
            _lock: file,
            record,
        })
    }

    /// Removes a note that nobody holds.
    pub fn remove(&self, name: &str) {
        remove(&self.directory, name);
    }
}

impl<R: Serialize + DeserializeOwned> Claim<R> {
    /// Locks the directory that it is in.
    pub fn lock_directory(&self) -> Result<Claims<R>, Error> {
        Claims::locked_again(self.directory.clone(), PATIENCE)
    }
}

impl<R> Claim<R> {
    /// Lets go of it, in all processes that have it from this one: it is left over from now on, as if they had been killed.
    pub fn let_go(&self) {
        if let Err(error) = lock::release(&self._lock) {
            log::debug!("a note is held until this process ends: {error}");
        }
    }

    /// The directory that it is in.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Is it this one that is left over under this name?
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name
    }

    /// Gives back what was claimed. Either the directory is locked then, or the name is never used again.
    pub fn release(&self) {
        remove(&self.directory, &self.name);
    }
}

fn file_name(name: &str) -> String {
    format!("{name}{EXTENSION}")
}

fn write(mut file: &File, record: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    file.write_all(&text)?;
    // Cutting to zero before would make ext4 write to the disk when the file is closed: 3 ms.
    file.set_len(text.len() as u64)
}

fn remove(directory: &Directory, name: &str) {
    let name = file_name(name);
    if let Err(error) = directory.remove(&name) {
        let path = directory.path().join(name);
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests;
