//! Files that a user names for kvmlet to write: found to be writable at once, and written whole or not at all.
//!
//! A regular file is replaced by a new one, so whoever reads it sees one whole text; its mode and owner stay. A FIFO
//! or a character device (`/dev/null`, `/dev/stdout`, `/dev/fd/63`) is written to as it is, and `-` is standard
//! output. Everything else is refused, and so is what another user has put into a directory where anybody can: links,
//! FIFOs and files in `/tmp` that wait for somebody to write to them (what the kernel's `fs.protected_*` are about,
//! which are not on everywhere).

mod find;

use super::directory::Directory;
use super::temporary::Temporary;
use super::users;
use super::wait::{self, Slot, Until};
use rustix::fs::{FileType, Gid, Mode, Stat, Uid, fchmod, fchown, fstat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who reads a FIFO or terminal has this long to take the next piece.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a FIFO that can be written to takes at once (PIPE_BUF).
const PIECE: usize = 4096;

/// Why something is not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is there is neither a file nor something that can be written to like one.
    #[error("cannot write to `{}`, which is {kind}", path.display())]
    Kind {
        /// What the user named.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Another user has put it where this user would write to it.
    #[error("`{}` was put there by {}", path.display(), users::describe(*owner))]
    Foreign {
        /// What the user named, or a link on the way there.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A FIFO that nobody has opened for reading.
    #[error("nobody reads the FIFO `{}`", path.display())]
    NoReader {
        /// What the user named.
        path: PathBuf,
    },
    /// The kernel says no.
    #[error("cannot write to `{}`", path.display())]
    Io {
        /// What the user named.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Kind { .. } => {
                Some("name a file, a FIFO or a terminal, or `-` for standard output")
            }
            Self::Foreign { .. } => Some("name a file in a directory of your own"),
            Self::NoReader { .. } => Some("start its reader first"),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some("make the directory first"),
                io::ErrorKind::TimedOut => Some("whoever reads it has stopped to"),
                _ => None,
            },
        }
    }
}

/// Something that a user has named to be written.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// A name in a directory, for a regular file that is replaced.
    Name {
        directory: Directory,
        name: OsString,
        /// Of the file that is there.
        rights: Option<Rights>,
    },
    /// Open, and written to as it is.
    Stream(File),
}

/// Whose a file is, and who may do what with it.
#[derive(Clone, Copy, Debug)]
struct Rights {
    user: u32,
    group: u32,
    mode: u32,
}

impl From<&Stat> for Rights {
    fn from(file: &Stat) -> Self {
        Self {
            user: file.st_uid,
            group: file.st_gid,
            mode: file.st_mode & 0o777,
        }
    }
}

impl WholeFile {
    /// Opens what a path names, and makes sure that it can be written. Nothing is changed yet.
    ///
    /// # Errors
    /// When it cannot be written, or should not be.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let target = match path == Path::new("-") {
            true => Target::copy_of(rustix::stdio::stdout()).map_err(Error::io(path))?,
            false => find::find(path)?,
        };
        let path = path.into();
        Ok(Self { path, target })
    }

    /// Is it this process's standard output?
    pub fn is_standard_output(&self) -> bool {
        match &self.target {
            Target::Stream(file) => {
                fstat(file).is_ok_and(|stat| is_same(rustix::stdio::stdout(), &stat))
            }
            Target::Name { .. } => false,
        }
    }

    /// Writes all of it, in the place of what is there.
    ///
    /// # Errors
    /// When it cannot be written; a file is as it was then.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        let written = match &self.target {
            Target::Stream(file) => stream(file, bytes),
            Target::Name {
                directory,
                name,
                rights,
            } => replace(directory, Path::new(name), *rights, bytes),
        };
        written.map_err(Error::io(&self.path))
    }
}

impl Target {
    fn copy_of(stream: BorrowedFd<'_>) -> io::Result<Self> {
        let copy = rustix::io::fcntl_dupfd_cloexec(stream, 0)?;
        Ok(Self::Stream(copy.into()))
    }
}

impl Error {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }

    fn kind(path: &Path, kind: FileType) -> Self {
        let kind = match kind {
            FileType::Directory => "a directory",
            FileType::BlockDevice => "a block device",
            FileType::Socket => "a socket",
            _ => "not a file",
        };
        let path = path.into();
        Self::Kind { path, kind }
    }
}

fn is_same(stream: BorrowedFd<'_>, there: &Stat) -> bool {
    fstat(stream).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (there.st_dev, there.st_ino))
}

fn replace(
    directory: &Directory,
    name: &Path,
    rights: Option<Rights>,
    bytes: &[u8],
) -> io::Result<()> {
    // Less the umask, as for any new file.
    let mut new = Temporary::new(directory, Mode::from_raw_mode(0o666))?;
    new.file().write_all(bytes)?;
    if let Some(Rights { user, group, mode }) = rights {
        // While it is still its maker's.
        fchmod(new.file(), Mode::from_raw_mode(mode))?;
        // Only root can leave a file to its owner; others replace what their directory lets them.
        let _ = fchown(
            new.file(),
            Some(Uid::from_raw(user)),
            Some(Gid::from_raw(group)),
        );
    }
    new.publish(name)
}

/// Writes to something that may be slow, but not for ever.
fn stream(file: &File, bytes: &[u8]) -> io::Result<()> {
    // A terminal may be raw now, where a line end alone leads straight down.
    let text = match rustix::termios::isatty(file) {
        true => String::from_utf8_lossy(bytes).replace('\n', "\r\n").into(),
        false => bytes.to_vec(),
    };
    let mut rest = &text[..];
    while !rest.is_empty() {
        if !wait::one(Slot::writable(file.as_fd()), Until::after(PATIENCE))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match rustix::io::write(file, &rest[..rest.len().min(PIECE)]) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
