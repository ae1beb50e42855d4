//! Where builds are: `build` in the directory of images. Each build has a directory of its own in it (`work-N`), which
//! goes when it ends; what programs keep between builds, so that a step is not done twice, is in one for each of them
//! (`cache-NAME`). Builds share the lock; whoever has it alone clears what killed ones have left.

use super::Error;
use super::engine::PROGRAMS;
use kvmlet_image::store::Store;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock::{self, Patience};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "build";
const LOCK: &str = "lock";
const WORK: &str = "work-";
/// More builds than that at once are none of a person's.
const MAX_WORK: usize = 10_000;
/// Whoever has the lock alone removes files, of which there may be many.
const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(1),
    limit: Duration::from_secs(300),
};

/// That directory, open.
pub struct Place {
    directory: Directory,
    lock: File,
}

/// A build's own directory, which goes with this value.
pub struct Work<'a> {
    path: PathBuf,
    _place: &'a Place,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Place {
        path: path.into(),
        source,
    }
}

impl Place {
    /// Opens it, made if it is not there.
    pub fn open(store: &Store) -> Result<Self, Error> {
        let directory = store.subdirectory(NAME)?;
        let lock = directory.open_or_make(LOCK);
        let lock = lock.map_err(failed(directory.path()))?;
        Ok(Self { directory, lock })
    }

    /// Opens it, if anything was built.
    pub fn existing(store: &Store) -> Result<Option<Self>, Error> {
        match store.has_subdirectory(NAME) {
            true => Self::open(store).map(Some),
            false => Ok(None),
        }
    }

    /// What a program keeps between builds.
    pub fn cache(&self, program: &str) -> PathBuf {
        self.directory.path().join(format!("cache-{program}"))
    }

    /// Clears what killed builds have left, if nobody builds, and `clear` what they have left in a program's storage.
    /// Then it is shared, until this value goes.
    pub fn clear_if_alone(
        &self,
        clear: impl Fn(PathBuf, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.directory.path();
        if lock::try_acquire(&self.lock).map_err(failed(path))? {
            let left = self.left()?;
            if !left.is_empty() {
                log::info!("a build was killed, and is cleared up behind");
                let program = super::engine::find()?;
                let work = self.work()?;
                if self.cache(program).exists() {
                    clear(self.cache(program), work.path())?;
                }
            }
            for left in left {
                fs::remove_dir_all(&left).map_err(failed(&left))?;
            }
        }
        self.share()
    }

    /// Clears what a build that has failed has left in a program's storage; where others build, the next one does it that is
    /// alone.
    pub fn clear_behind(
        &self,
        program: &str,
        clear: impl Fn(PathBuf, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let path = self.directory.path();
        let work = self.work()?;
        let is_alone = lock::try_acquire(&self.lock).map_err(failed(path))?;
        let cleared = match is_alone {
            true => clear(self.cache(program), work.path()),
            false => Ok(()),
        };
        if !is_alone || cleared.is_err() {
            // The directory tells that there is something to clear.
            std::mem::forget(work);
        }
        cleared
    }

    fn share(&self) -> Result<(), Error> {
        let path = self.directory.path().join(LOCK);
        let attempt = || match lock::try_share(&self.lock) {
            Ok(false) => None,
            other => Some(other.map(drop)),
        };
        let tell = || log::warn!("waiting for the lock `{}`", path.display());
        let shared = lock::wait(PATIENCE, attempt, tell);
        let shared = shared.map_err(kvmlet_image::store::Error::from)?;
        match shared {
            Some(shared) => shared.map_err(failed(&path)),
            None => Err(Error::Busy { path, holder: None }),
        }
    }

    /// Directories of builds.
    fn left(&self) -> Result<Vec<PathBuf>, Error> {
        let path = self.directory.path();
        let names = self.directory.names().map_err(failed(path))?;
        let left = names.into_iter().filter(|name| name.starts_with(WORK));
        Ok(left.map(|name| path.join(name)).collect())
    }

    /// Makes a build's own directory.
    pub fn work(&self) -> Result<Work<'_>, Error> {
        for number in 0..MAX_WORK {
            let path = self.directory.path().join(format!("{WORK}{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.map_err(failed(&path))?;
                    return Ok(Work { path, _place: self });
                }
            }
        }
        let path = self.directory.path();
        Err(failed(path)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Removes all that is kept, if nobody builds; tells whether that was so.
    pub fn forget(
        &self,
        drop_images: impl Fn(&'static str, PathBuf, &Path) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        if !lock::try_acquire(&self.lock).map_err(failed(self.directory.path()))? {
            return Ok(false);
        }
        for left in self.left()? {
            fs::remove_dir_all(&left).map_err(failed(&left))?;
        }
        for program in PROGRAMS {
            let cache = self.cache(program);
            // Files of other users, which only the program may remove, if this is not root.
            if cache.exists() && !rustix::process::geteuid().is_root() {
                drop_images(program, cache.clone(), self.work()?.path())?;
            } else if cache.exists() {
                fs::remove_dir_all(&cache).map_err(failed(&cache))?;
            }
        }
        Ok(true)
    }
}

impl Work<'_> {
    /// An absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory in it.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(failed(&path))?;
        Ok(path)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!("cannot remove `{}`: {error}", self.path.display());
        }
    }
}
