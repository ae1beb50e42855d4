//! What was made of the host on the way, which goes again where nothing comes of it.

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Names, each in its directory, that were not there before, and what directories were that were there. Dropped, the former
/// are removed and the latter as they were, the last one first.
#[derive(Debug, Default)]
pub struct Made(Vec<Step>);

#[derive(Debug)]
enum Step {
    /// There was nothing of that name in the place.
    New {
        place: OwnedFd,
        name: String,
        flags: AtFlags,
    },
    /// It was somebody's.
    Given {
        directory: OwnedFd,
        user: Uid,
        group: Gid,
        mode: Mode,
    },
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
        self.0.push(Step::New { place, name, flags });
        Ok(())
    }

    /// Gives a directory to a user, and to nobody else.
    pub fn give(&mut self, directory: impl AsFd, user: Uid, group: Gid) -> io::Result<()> {
        let found = fstat(&directory)?;
        self.0.push(Step::Given {
            directory: directory.as_fd().try_clone_to_owned()?,
            user: Uid::from_raw(found.st_uid),
            group: Gid::from_raw(found.st_gid),
            mode: Mode::from_raw_mode(found.st_mode),
        });
        fchmod(&directory, Mode::RWXU)?;
        Ok(fchown(directory, Some(user), Some(group))?)
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
        while let Some(step) = self.0.pop() {
            match step {
                // What somebody else has put something into stays.
                Step::New { place, name, flags } => drop(unlinkat(place, name, flags)),
                Step::Given {
                    directory,
                    user,
                    group,
                    mode,
                } => {
                    // A change of the owner takes bits of the mode away.
                    let _ = fchown(&directory, Some(user), Some(group));
                    let _ = fchmod(directory, mode);
                }
            }
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

    #[test]
    fn what_was_given_away_is_its_owners_again() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if !rustix::process::geteuid().is_root() {
            return println!("SKIPPED: only root can give something away");
        }
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(place.path(), Some(7), Some(8)).unwrap();
        let mode = std::fs::Permissions::from_mode(0o2750);
        std::fs::set_permissions(place.path(), mode).unwrap();
        let look = || {
            let found = place.path().metadata().unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777)
        };
        let open = || openat(CWD, place.path(), DIRECTORY, Mode::empty()).unwrap();
        let mut made = Made::default();
        for _ in 0..2 {
            let (user, group) = (Uid::from_raw(70), Gid::from_raw(80));
            made.give(open(), user, group).unwrap();
            assert_eq!(look(), (70, 80, 0o700));
        }
        drop(made);
        assert_eq!(look(), (7, 8, 0o2750));
    }
}
