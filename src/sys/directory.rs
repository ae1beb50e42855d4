//! Directories that are held open. What is named in them is looked up there and nowhere else: no link leads out, and
//! nobody can put another directory in their place meanwhile.

use super::temporary::Temporary;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, Stat, chmodat, fchmod, fstat, mkdirat, openat,
    seek, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const OPEN: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Files of this user alone.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory. The path may lead through symbolic links, but not end in one.
    ///
    /// # Errors
    /// What `open` says: ENOTDIR for a link or anything else than a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            fd: openat(CWD, path, OPEN, Mode::empty())?,
            path: path.into(),
        })
    }

    /// The directory that a file is in, and its name there. Errors are those of [`open`](Self::open), and EISDIR where the
    /// path does not end in a name.
    pub fn of_file(path: &Path) -> io::Result<(Self, &Path)> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
        Ok((Self::open(parent.unwrap_or(Path::new(".")))?, name.as_ref()))
    }

    /// Opens a directory of this user's, or makes it for this user alone, whatever the umask.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_own(path: &Path) -> io::Result<Self> {
        Ok(Self {
            fd: open_own(CWD, path)?,
            path: path.into(),
        })
    }

    /// A directory in this one, of this user alone, made if it is not there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn subdirectory(&self, name: &str) -> io::Result<Self> {
        Ok(Self {
            fd: open_own(self.fd.as_fd(), Path::new(name))?,
            path: self.path.join(name),
        })
    }

    /// A directory in this one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn existing_subdirectory(&self, name: &str) -> io::Result<Self> {
        Ok(Self {
            fd: openat(&self.fd, name, OPEN, Mode::empty())?,
            path: self.path.join(name),
        })
    }

    /// Where a path begins: `/`, or the current directory. It need not be readable.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start_of(path: &Path) -> io::Result<Self> {
        let start = Path::new(if path.is_absolute() { "/" } else { "." });
        Ok(Self {
            fd: openat(CWD, start, OPEN | OFlags::PATH, Mode::empty())?,
            path: start.into(),
        })
    }

    /// A directory in this one, as a part of a way: it need not be readable.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self {
            fd: openat(&self.fd, name, OPEN | OFlags::PATH, Mode::empty())?,
            path: self.path.join(name),
        })
    }

    /// The same directory, for a second holder.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            path: self.path.clone(),
        })
    }

    /// Where it was found, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is, and who may do what with it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(fstat(&self.fd)?)
    }

    /// What is there by a name, which is not followed if it is a link.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stat_entry(&self, name: &Path) -> io::Result<Stat> {
        Ok(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens a file, and makes it, for this user alone, if it is not there.
    ///
    /// # Errors
    /// What the kernel says; ELOOP for a link.
    pub fn open_or_make(&self, name: &str) -> io::Result<File> {
        self.open_private(name, OFlags::empty())
    }

    /// The same, to write at its end.
    ///
    /// # Errors
    /// What the kernel says; ELOOP for a link.
    pub fn open_to_append(&self, name: &str) -> io::Result<File> {
        self.open_private(name, OFlags::APPEND)
    }

    /// Makes a file, for this user alone, which is not there yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_new(&self, name: &str) -> io::Result<File> {
        self.open_private(name, OFlags::EXCL)
    }

    /// Its mode is what is said here, whatever the umask.
    fn open_private(&self, name: &str, how: OFlags) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(&self.fd, name, flags | how, PRIVATE);
        let file = match open() {
            Err(Errno::ACCESS) => {
                give_back(self.fd.as_fd(), Path::new(name), OFlags::empty(), PRIVATE)?;
                open()?
            }
            other => other?,
        };
        if fstat(&file)?.st_mode & PRIVATE.as_raw_mode() != PRIVATE.as_raw_mode() {
            fchmod(&file, PRIVATE)?;
        }
        Ok(file.into())
    }

    /// Opens a file for reading. It never waits, as it would for the writer of a FIFO.
    ///
    /// # Errors
    /// What the kernel says; ELOOP for a link.
    pub fn open_existing(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// What a file says, up to `most` bytes of it; nothing if there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_existing(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::with_capacity(4096);
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Has a file say this, for this user alone. Whoever reads it sees all or nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut new = Temporary::private(self)?;
        io::Write::write_all(new.file(), bytes)?;
        new.publish(Path::new(name))
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it, in no order; those that are not UTF-8 are nobody's here.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn names(&self) -> io::Result<Vec<String>> {
        seek(&self.fd, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.into()),
            }
        }
        Ok(names)
    }
}

/// Opens a directory, which is made if it is not there.
fn open_own(at: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    match openat(at, name, OPEN, Mode::empty()) {
        Err(Errno::NOENT) => match mkdirat(at, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        },
        // As a umask of 0777 leaves what is made.
        Err(Errno::ACCESS) => {}
        other => return Ok(other?),
    }
    if let Ok(directory) = openat(at, name, OPEN, Mode::empty())
        && fstat(&directory)?.st_mode & Mode::RWXU.as_raw_mode() == Mode::RWXU.as_raw_mode()
    {
        return Ok(directory);
    }
    give_back(at, name, OFlags::DIRECTORY, Mode::RWXU)?;
    Ok(openat(at, name, OPEN, Mode::empty())?)
}

/// Gives this user the rights to what is the user's own, which a umask has kept from it when it was made.
fn give_back(at: BorrowedFd<'_>, name: &Path, kind: OFlags, mode: Mode) -> io::Result<()> {
    // This takes no rights, and the link in /proc leads nowhere else.
    let flags = kind | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(at, name, flags, Mode::empty())?;
    if fstat(&found)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let open = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(chmodat(CWD, open, mode, AtFlags::empty())?)
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn no_link_leads_out() {
        let place = tempfile::tempdir().unwrap();
        let canary = place.path().join("canary");
        fs::write(&canary, "alive").unwrap();
        fs::create_dir(place.path().join("inside")).unwrap();
        let inside = Directory::open(&place.path().join("inside")).unwrap();
        for name in ["file", "directory"] {
            let target = if name == "file" {
                &canary
            } else {
                place.path()
            };
            symlink(target, inside.path().join(name)).unwrap();
        }
        assert!(inside.open_or_make("file").is_err());
        assert!(inside.open_existing("file").is_err());
        assert!(inside.read("file", 10).is_err());
        assert!(inside.subdirectory("directory").is_err());
        assert!(Directory::open(&inside.path().join("directory")).is_err());
        // What is written and removed is the link.
        inside.write("file", b"new").unwrap();
        assert_eq!(inside.read("file", 10).unwrap().unwrap(), b"new");
        let mode = fs::metadata(inside.path().join("file")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        inside.remove("directory").unwrap();
        inside.remove("directory").unwrap();
        assert_eq!(fs::read(&canary).unwrap(), b"alive");
        assert_eq!(inside.names().unwrap(), ["file"]);
        assert_eq!(inside.names().unwrap(), ["file"]);
    }

    /// Runs `body` as somebody who is not root, on a thread with a umask of its own, in a directory of that user's.
    fn with_umask(mask: u32, body: impl FnOnce(&Path) + Send) {
        let place = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(place.path(), Some(65534), None).unwrap();
        }
        let run = || {
            // SAFETY: both concern this thread only; it has no more rights than before.
            unsafe {
                assert_eq!(libc::unshare(libc::CLONE_FS), 0);
                libc::syscall(libc::SYS_setresuid, -1, 65534, -1);
            }
            rustix::process::umask(Mode::from_raw_mode(mask));
            body(place.path());
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    }

    #[test]
    fn what_is_ours_is_for_us_alone_whatever_the_umask() {
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        for mask in [0o777, 0o077, 0o022, 0] {
            with_umask(mask, |place| {
                let directory = Directory::open_own(&place.join("own")).unwrap();
                let inner = directory.subdirectory("inner").unwrap();
                inner.open_or_make("lock").unwrap();
                inner.write("note", b"note").unwrap();
                for path in ["own", "own/inner"] {
                    assert_eq!(mode(&place.join(path)), 0o700, "{path} {mask:o}");
                }
                for path in ["own/inner/lock", "own/inner/note"] {
                    assert_eq!(mode(&place.join(path)), 0o600, "{path} {mask:o}");
                }
            });
        }
    }

    #[test]
    fn what_a_umask_has_closed_is_opened_again() {
        with_umask(0o777, |place| {
            fs::create_dir(place.join("own")).unwrap();
            assert!(Directory::open(&place.join("own")).is_err());
            let own = Directory::open_own(&place.join("own")).unwrap();
            fs::write(place.join("own/lock"), "").unwrap();
            assert!(own.open_existing("lock").is_err());
            own.open_or_make("lock").unwrap();
            own.open_existing("lock").unwrap();
        });
    }

    #[test]
    fn files_have_their_mode_whatever_the_umask() {
        for mask in [0, 0o777] {
            with_umask(mask, |place| {
                let own = Directory::open(place).unwrap().subdirectory("own").unwrap();
                let made = [
                    own.make_new("new"),
                    own.open_to_append("log"),
                    own.open_or_make("lock"),
                ];
                for file in made {
                    assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o7777, 0o600);
                }
                own.open_to_append("log").unwrap();
                let error = own.make_new("new").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            });
        }
    }

    #[test]
    fn a_fifo_keeps_nobody_waiting() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mkfifoat(&directory, "fifo", mode).unwrap();
        assert_eq!(directory.read("fifo", 10).unwrap().unwrap(), b"");
        assert!(directory.read("none", 10).unwrap().is_none());
    }
}
