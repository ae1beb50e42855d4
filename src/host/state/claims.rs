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
    pub fn lock_existing(runtime: &RuntimeDirectory, name: &str) -> Result<Option<Self>, Error> {
        match runtime.existing_subdirectory(name) {
            Ok(directory) => Self::locked(directory, PATIENCE).map(Some),
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
            let file = match self.directory.open_existing(&file_name) {
                Ok(file) => file,
                // Owners that end remove their files without waiting for the directory. (And no owner makes links.)
                Err(error)
                    if [Some(libc::ENOENT), Some(libc::ELOOP)].contains(&error.raw_os_error()) =>
                {
                    continue;
                }
                // A claim that is not seen must not count as none.
                Err(error) => return Err(failed(error)),
            };
            text.clear();
            let read = (&file).take(MAX_BYTES).read_to_end(&mut text);
            let record = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
            match lock::try_acquire(&file) {
                Ok(true) => stale.push((name.into(), record)),
                Ok(false) => live.extend(record),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok((live, stale))
    }

    /// Notes something under a name that no living owner has.
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
mod tests {
    use super::*;

    fn claims(place: &Path) -> Claims<u32> {
        let runtime = RuntimeDirectory::at(&place.join("runtime")).unwrap();
        Claims::lock(&runtime, "numbers").unwrap()
    }

    #[test]
    fn a_claim_is_stale_when_its_owner_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let claims = claims(place.path());
        let first = claims.claim("first", 1).unwrap();
        let second = claims.claim("second", 2).unwrap();
        let (mut live, stale) = claims.all().unwrap();
        live.sort_unstable();
        assert_eq!((live, stale.len()), (vec![1, 2], 0));
        // The lock goes, the file stays: as after a kill.
        drop(first);
        let (live, stale) = claims.all().unwrap();
        assert_eq!(live, [2]);
        assert_eq!(stale, [("first".into(), Some(1))]);
        // A name can be taken again, unless its owner lives.
        assert!(claims.claim("second", 4).is_err());
        assert_eq!(claims.all().unwrap().0, [2], "and its note is as it was");
        let again = claims.claim("first", 3).unwrap();
        second.release();
        again.release();
        assert_eq!(claims.all().unwrap(), (vec![], vec![]));
    }

    #[test]
    fn a_note_that_cannot_be_written_is_not_left() {
        /// Nothing that a full disk would take.
        struct Unwritten;
        impl Serialize for Unwritten {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no space left on device"))
            }
        }
        impl<'de> serde::Deserialize<'de> for Unwritten {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Ok(Self)
            }
        }
        let place = tempfile::tempdir().unwrap();
        let runtime = RuntimeDirectory::at(place.path()).unwrap();
        let claims = Claims::<Unwritten>::lock(&runtime, "notes").unwrap();
        assert!(claims.claim("x", Unwritten).is_err());
        assert_eq!(claims.directory().names().unwrap(), ["lock"]);
    }

    #[test]
    fn what_cannot_be_read_is_left_over_all_the_same() {
        let place = tempfile::tempdir().unwrap();
        let claims = claims(place.path());
        claims.directory().write("x.claim", b"{").unwrap();
        claims.directory().write("other", b"1").unwrap();
        assert_eq!(claims.all().unwrap().1, [("x".into(), None)]);
    }

    #[test]
    fn who_locks_others_out_is_named() {
        let error = |holder| {
            let path = PathBuf::from("/run/kvmlet/ledger/lock");
            let error = Error::Busy { path, holder };
            format!("{error}\n{}", error.help().unwrap())
        };
        let name = Some("kvmlet".into());
        assert_eq!(
            error(Some(Holder { pid: 7, name })),
            "process 7 (kvmlet) has held the lock `/run/kvmlet/ledger/lock` for 30 s\n\
             if it does not go on, end it: `kill 7`"
        );
        assert!(error(None).ends_with("`fuser /run/kvmlet/ledger/lock` tells which one"));
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let place = tempfile::tempdir().unwrap();
        let runtime = RuntimeDirectory::at(place.path()).unwrap();
        assert!(
            Claims::<u32>::lock_existing(&runtime, "n")
                .unwrap()
                .is_none()
        );
        drop(Claims::<u32>::lock(&runtime, "n").unwrap());
        assert!(
            Claims::<u32>::lock_existing(&runtime, "n")
                .unwrap()
                .is_some()
        );
    }
}
