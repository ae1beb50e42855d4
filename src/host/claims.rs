//! Notes of who has what: a directory with a lock, and in it a file for each owner.
//!
//! An owner's file is locked as long as the owner lives. The lock ends with the process, however that ends; so
//! a file that can be locked is left over, and what it names can be cleared by whoever comes next.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What the names of owners' files end with.
const EXTENSION: &str = "claim";
/// No note is longer.
const MAX_BYTES: u64 = 1 << 20;

/// A directory or file of notes cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`, where kvmlet notes what VMs have", .path.display())]
pub struct Error {
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Error {
    fn of(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self {
            path: path.into(),
            source,
        }
    }

    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<String> {
        (self.source.kind() == io::ErrorKind::PermissionDenied)
            .then(|| "set XDG_RUNTIME_DIR to a directory of this user".into())
    }
}

/// A directory of notes, locked against other processes until this value is dropped. `R` is what a note says.
pub(super) struct Claims<R> {
    directory: PathBuf,
    _lock: File,
    notes: PhantomData<R>,
}

/// A note that this process holds. Dropping it lets go of it, but leaves the file to be found.
pub(super) struct Claim<R> {
    path: PathBuf,
    _lock: File,
    pub record: R,
}

/// A note that nobody holds, with what could be read of it.
pub(super) type Leftover<R> = (PathBuf, Option<R>);

impl<R: Serialize + DeserializeOwned> Claims<R> {
    /// Makes the directory if it is not there, and waits for the lock.
    pub fn lock(directory: PathBuf) -> Result<Self, Error> {
        let path = directory.join("lock");
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).write(true).open(&path)
        };
        let lock = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                let made = builder.recursive(true).mode(0o700).create(&directory);
                made.and_then(|()| open())
            }
            other => other,
        };
        let lock = lock.map_err(Error::of(&directory))?;
        retry_on_signal(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| Error::of(&directory)(error.into()))?;
        Ok(Self {
            directory,
            _lock: lock,
            notes: PhantomData,
        })
    }

    /// A file of this directory, for what else is to be remembered.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// All notes: those whose owners live, and those left over.
    pub fn all(&self) -> Result<(Vec<R>, Vec<Leftover<R>>), Error> {
        let failed = Error::of(&self.directory);
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        let mut text = Vec::with_capacity(4096);
        for entry in fs::read_dir(&self.directory).map_err(&failed)? {
            let path = entry.map_err(&failed)?.path();
            if path.extension().is_none_or(|end| end != EXTENSION) {
                continue;
            }
            // Owners that end remove their files without waiting for the directory.
            let Ok(file) = File::open(&path) else {
                continue;
            };
            text.clear();
            let read = (&file).take(MAX_BYTES).read_to_end(&mut text);
            let record = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => stale.push((path, record)),
                Err(Errno::WOULDBLOCK) => live.extend(record),
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok((live, stale))
    }

    /// Notes something under a name that no living owner has.
    pub fn claim(&self, name: &str, record: R) -> Result<Claim<R>, Error> {
        let path = self.file(&format!("{name}.{EXTENSION}"));
        let write = || {
            let mut options = File::options();
            let mut file = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            let text = serde_json::to_vec(&record)?;
            file.write_all(&text)?;
            // Cutting to zero before would make ext4 write to the disk when the file is closed: 3 ms.
            file.set_len(text.len() as u64)?;
            Ok(file)
        };
        let lock = write().map_err(Error::of(&path))?;
        Ok(Claim {
            path,
            _lock: lock,
            record,
        })
    }

    /// Removes a note that nobody holds.
    pub fn remove(&self, path: &Path) {
        remove(path);
    }
}

impl<R> Claim<R> {
    /// Gives back what was claimed. Either the directory is locked then, or the name is never used again.
    pub fn release(&self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

fn retry_on_signal(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_stale_when_its_owner_is_gone() {
        let runtime = tempfile::tempdir().unwrap();
        let claims = Claims::<u32>::lock(runtime.path().join("a/b")).unwrap();
        let first = claims.claim("first", 1).unwrap();
        let second = claims.claim("second", 2).unwrap();
        let (mut live, stale) = claims.all().unwrap();
        live.sort_unstable();
        assert_eq!((live, stale.len()), (vec![1, 2], 0));
        // The lock goes, the file stays: as after a kill.
        drop(first);
        let (live, stale) = claims.all().unwrap();
        assert_eq!(live, [2]);
        assert_eq!(stale, [(claims.file("first.claim"), Some(1))]);
        // A name can be taken again, unless its owner lives.
        assert!(claims.claim("second", 4).is_err());
        assert_eq!(claims.all().unwrap().0, [2], "and its note is as it was");
        let again = claims.claim("first", 3).unwrap();
        second.release();
        again.release();
        assert_eq!(claims.all().unwrap(), (vec![], vec![]));
    }

    #[test]
    fn what_cannot_be_read_is_left_over_all_the_same() {
        let runtime = tempfile::tempdir().unwrap();
        let claims = Claims::<u32>::lock(runtime.path().into()).unwrap();
        fs::write(claims.file("x.claim"), "{").unwrap();
        fs::write(claims.file("other"), "1").unwrap();
        assert_eq!(claims.all().unwrap().1, [(claims.file("x.claim"), None)]);
    }
}
