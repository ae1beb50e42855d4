//! Files that get their name when they are whole.

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fchmod, linkat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

/// Random names are tried so often, though the first one will do.
const ATTEMPTS: usize = 8;

/// A new file in a directory. It has no name, so it goes with a process that is killed; where the file system has no
/// such files (O_TMPFILE in open(2)), it has a random one that nobody else has had.
pub struct Temporary<'a> {
    directory: BorrowedFd<'a>,
    file: File,
    name: Option<String>,
}

impl<'a> Temporary<'a> {
    /// Makes the file; `mode` less the umask is who may do what with it.
    ///
    /// # Errors
    /// What the kernel says, when no file can be made there.
    pub fn new(directory: &'a impl AsFd, mode: Mode) -> io::Result<Self> {
        let directory = directory.as_fd();
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(directory, ".", flags, mode) {
            Ok(file) => Ok(Self {
                directory,
                file: file.into(),
                name: None,
            }),
            // EISDIR: a kernel or file system that knows of no such files takes it for a directory.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::named(directory, mode),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file for this user alone, whatever the umask.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn private(directory: &'a impl AsFd) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let new = Self::new(directory, mode)?;
        fchmod(&new.file, mode)?;
        Ok(new)
    }

    fn named(directory: BorrowedFd<'a>, mode: Mode) -> io::Result<Self> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        with_random_name(|name| {
            let file = openat(directory, name, flags, mode)?;
            Ok(Self {
                directory,
                file: file.into(),
                name: Some(name.into()),
            })
        })
    }

    /// What is to be written to, and can be read.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file a name in its directory, in the place of the file that had it.
    ///
    /// # Errors
    /// As [`check_place`], and what the kernel says. Nothing is left then, and what had the name has it still.
    pub fn publish(mut self, name: &Path) -> io::Result<()> {
        check_place(self.directory, name)?;
        if self.name.is_none() {
            match self.link(name) {
                // A link cannot replace: it gets a name of its own first.
                Err(Errno::EXIST) => {
                    self.name = with_random_name(|random| {
                        self.link(Path::new(random))?;
                        Ok(Some(random.into()))
                    })?;
                }
                other => return Ok(other?),
            }
        }
        if let Some(temporary) = &self.name {
            renameat(self.directory, temporary.as_str(), self.directory, name)?;
            self.name = None;
        }
        Ok(())
    }

    /// Gives the file a name in its directory that nothing has.
    ///
    /// # Errors
    /// What the kernel says; that the name is in use, too. Nothing is left then.
    pub fn publish_new(self, name: &Path) -> io::Result<()> {
        match &self.name {
            None => self.link(name)?,
            Some(temporary) => {
                let from = temporary.as_str();
                linkat(self.directory, from, self.directory, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    fn link(&self, name: &Path) -> rustix::io::Result<()> {
        match linkat(&self.file, "", self.directory, name, AtFlags::EMPTY_PATH) {
            // That took CAP_DAC_READ_SEARCH before Linux 6.10; this takes /proc (linkat(2)).
            Err(Errno::NOENT) => {
                let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, open, self.directory, name, AtFlags::SYMLINK_FOLLOW)
            }
            other => other,
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = unlinkat(self.directory, name.as_str(), AtFlags::empty());
        }
    }
}

/// Whether a file may have this name in a directory: nothing has it, or a file, or a link to one. Devices, pipes and sockets
/// are others': root that writes to `/dev/null` does not mean to take it away from all.
///
/// # Errors
/// That something else is there; what the kernel says.
pub fn check_place(directory: impl AsFd, name: &Path) -> io::Result<()> {
    let is_file = |mode| FileType::from_raw_mode(mode) == FileType::RegularFile;
    match statat(directory, name, AtFlags::empty()) {
        Ok(found) if is_file(found.st_mode) => Ok(()),
        Ok(_) => {
            let said = "what is there is not a regular file";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, said))
        }
        // A link to what is not there can be replaced as well.
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A file in a directory that never has a name, to be written and read; it goes when it is closed.
///
/// # Errors
/// What the kernel says, when no file can be made there.
pub fn unnamed(directory: &impl AsFd) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => with_random_name(|name| {
            let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = openat(directory, name, new, mode)?;
            unlinkat(directory, name, AtFlags::empty())?;
            Ok(file.into())
        }),
        Err(error) => Err(error.into()),
    }
}

/// What temporary files are called where they have a name, in front of something random. Whoever knows that nobody is at
/// work may remove what a killed process has left.
pub const PREFIX: &str = ".kvmlet-";

/// Does something under a name that is not in use.
fn with_random_name<T>(mut attempt: impl FnMut(&str) -> rustix::io::Result<T>) -> io::Result<T> {
    let mut result = Err(Errno::EXIST);
    for _ in 0..ATTEMPTS {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        result = attempt(&format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)));
        if !matches!(result, Err(Errno::EXIST)) {
            break;
        }
    }
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    /// With both kinds of temporary files.
    fn each(test: impl for<'a> Fn(&'a Directory, Temporary<'a>)) {
        let mode = Mode::from(0o640);
        for named in [false, true] {
            let place = tempfile::tempdir().unwrap();
            let directory = Directory::open(place.path()).unwrap();
            let mut temporary = match named {
                false => Temporary::new(&directory, mode).unwrap(),
                true => Temporary::named(directory.as_fd(), mode).unwrap(),
            };
            temporary.file().write_all(b"whole").unwrap();
            test(&directory, temporary);
        }
    }

    #[test]
    fn a_new_name_is_nobodys_else() {
        each(|directory, temporary| {
            let path = directory.path().join("new");
            temporary.publish_new(Path::new("new")).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            let other = Temporary::new(directory, Mode::from(0o640)).unwrap();
            let error = other.publish_new(Path::new("new")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        });
    }

    #[test]
    fn it_appears_whole_and_replaces() {
        each(|directory, temporary| {
            assert!(!directory.path().join("name").exists());
            temporary.publish(Path::new("name")).unwrap();
            assert_eq!(directory.names().unwrap(), ["name"]);
            let mut second = Temporary::new(directory, Mode::RUSR).unwrap();
            second.file().write_all(b"other").unwrap();
            second.publish(Path::new("name")).unwrap();
            assert_eq!(directory.names().unwrap(), ["name"]);
            let path = directory.path().join("name");
            assert_eq!(fs::read(&path).unwrap(), b"other");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o400);
        });
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        each(|directory, temporary| {
            let path = directory.path().join("socket");
            let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            std::os::unix::fs::symlink("socket", directory.path().join("link")).unwrap();
            for name in ["socket", "link"] {
                let error = check_place(directory, Path::new(name)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            }
            assert!(temporary.publish(Path::new("socket")).is_err());
            let mut names = directory.names().unwrap();
            names.sort();
            assert_eq!(names, ["link", "socket"]);
            // As little as a device, which only root makes.
            let devices = Directory::open(Path::new("/dev")).unwrap();
            assert!(check_place(&devices, Path::new("null")).is_err());
            std::os::unix::fs::symlink("nowhere", directory.path().join("away")).unwrap();
            let again = Temporary::new(directory, Mode::RUSR).unwrap();
            again.publish(Path::new("away")).unwrap();
        });
    }

    #[test]
    fn nothing_is_left_of_what_was_not_published() {
        each(|directory, temporary| {
            drop(temporary);
            assert!(directory.names().unwrap().is_empty());
        });
        each(|directory, temporary| {
            fs::create_dir(directory.path().join("name")).unwrap();
            assert!(temporary.publish(Path::new("name")).is_err());
            assert_eq!(directory.names().unwrap(), ["name"]);
        });
    }
}
