//! What was made of the host on the way, which goes again where nothing comes of it.

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Names, each in its directory, that were not there before. Dropped, they are removed, the last one first.
#[derive(Debug, Default)]
pub struct Made(Vec<Name>);

#[derive(Debug)]
struct Name {
    place: OwnedFd,
    name: String,
    flags: AtFlags,
}

/// How directories are opened: as what they are, where no link leads.
pub const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Made {
    /// A file of this name was made.
    pub fn file(&mut self, place: impl AsFd, name: &str) -> io::Result<()> {
        self.add(place, name, AtFlags::empty())
    }

    fn add(&mut self, place: impl AsFd, name: &str, flags: AtFlags) -> io::Result<()> {
        let (place, name) = (place.as_fd().try_clone_to_owned()?, name.to_owned());
        self.0.push(Name { place, name, flags });
        Ok(())
    }

    /// Opens a directory in another one, and makes it if there is none.
    pub fn directory(&mut self, place: impl AsFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
        match mkdirat(&place, name, Mode::from_raw_mode(mode)) {
            Ok(()) => self.add(&place, name, AtFlags::REMOVEDIR)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(openat(place, name, DIRECTORY, Mode::empty())?)
    }

    /// It stays, whatever comes of it.
    pub fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        while let Some(Name { place, name, flags }) = self.0.pop() {
            // What somebody else has put something into stays.
            let _ = unlinkat(place, name, flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    #[test]
    fn what_was_not_there_before_goes_again() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("old")).unwrap();
        let open = || openat(CWD, place.path(), DIRECTORY, Mode::empty()).unwrap();
        let make = |made: &mut Made| {
            let old = made.directory(open(), "old", 0o755).unwrap();
            let new = made.directory(&old, "new", 0o700).unwrap();
            std::fs::write(place.path().join("old/new/file"), "").unwrap();
            made.file(new, "file").unwrap();
        };
        make(&mut Made::default());
        assert!(!place.path().join("old/new").exists());
        assert!(place.path().join("old").exists());
        let mut made = Made::default();
        make(&mut made);
        made.keep();
        drop(made);
        assert!(place.path().join("old/new/file").exists());
        std::os::unix::fs::symlink("/", place.path().join("link")).unwrap();
        assert!(Made::default().directory(open(), "link", 0o755).is_err());
    }
}
