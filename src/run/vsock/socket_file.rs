//! A socket with a name: made where there is none that lives, and removed at the end.

use super::Error;
use kvmlet_sys::lock;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, open, openat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Programs that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long is waited for others who look at the same directory: a hundred times.
const PAUSE: Duration = Duration::from_millis(10);

/// A listening socket at a path, for its owner only: whoever may connect to it may do so in the guest.
#[derive(Debug)]
pub(super) struct SocketFile {
    listener: OwnedFd,
    directory: OwnedFd,
    owner_of_directory: u32,
    name: OsString,
    /// Device and inode, by which it is known as ours.
    identity: (u64, u64),
}

impl SocketFile {
    /// Makes it. One that is there and to which nobody listens is replaced.
    pub fn make(path: &Path) -> Result<Self, Error> {
        let unmade = || Error::unmade(path);
        let name = path.file_name().unwrap_or_default().to_os_string();
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(parent, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(unmade())?;
        let turn = wait_for_others(directory.as_fd());
        clear(directory.as_fd(), &name, path)?;
        let made = || {
            let listener = stream_socket()?;
            bind(&listener, &SocketAddrUnix::new(path)?)?;
            // Nobody can connect before it listens.
            chmodat(&directory, &name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
            listen(&listener, BACKLOG)?;
            let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((listener, (stat.st_dev, stat.st_ino)))
        };
        let (listener, identity) = made().map_err(|error: Errno| match error {
            Errno::ADDRINUSE => Error::Live { path: path.into() },
            error => unmade()(error.into()),
        })?;
        // For others who want to look.
        drop(turn);
        let owner = fstat(&directory)
            .map_err(io::Error::from)
            .map_err(unmade())?;
        Ok(Self {
            listener,
            directory,
            owner_of_directory: owner.st_uid,
            name,
            identity,
        })
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Connects to what listens on that port of the host: the socket beside this one with `_` and the port at the end of
    /// its name. It is no link, and its owner is who could have put this one there.
    pub fn connect_beside(&self, port: u32) -> io::Result<OwnedFd> {
        let mut name = self.name.clone();
        name.push(format!("_{port}"));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        let owners = [
            0,
            self.owner_of_directory,
            rustix::process::geteuid().as_raw(),
        ];
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(Errno::NOTSOCK.into());
        }
        if !owners.contains(&stat.st_uid) {
            log::warn!(
                "`{}` belongs to another user, {}: the guest is not connected to it",
                Path::new(&name).display(),
                stat.st_uid
            );
            return Err(Errno::ACCESS.into());
        }
        let stream = stream_socket()?;
        // What was looked at, and not what has its name now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        connect(&stream, &SocketAddrUnix::new(path)?)?;
        Ok(stream)
    }

    /// Removes the file, if it is still the one that was made.
    fn remove(&self) {
        let stat = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }

    /// Closes it and leaves the file to the process that has it, too.
    pub fn abandon(mut self) {
        self.identity = (0, 0);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity != (0, 0) {
            self.remove();
        }
    }
}

/// The name of a socket whose listener is somebody else's. Dropping it removes the file, if it is still the one that was made.
#[derive(Debug)]
pub struct SocketName {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketName {
    /// Makes a socket that listens, for this user only. One that is there already is replaced if nobody listens.
    ///
    /// # Errors
    /// When there cannot be one.
    pub fn make(path: &Path) -> Result<(OwnedFd, Self), Error> {
        let file = SocketFile::make(path)?;
        let listener = file.listener.try_clone().map_err(Error::unmade(path))?;
        let identity = file.identity;
        file.abandon();
        let path = path.into();
        Ok((listener, Self { path, identity }))
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        let stat = statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity) {
            let _ = unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Two that find the same dead socket must not both replace it. Who may read the directory may hold its lock, so it is
/// not waited for in earnest. It is held as long as what this returns is open.
fn wait_for_others(directory: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let turn = openat(directory, ".", flags, Mode::empty()).ok()?;
    for _ in 0..100 {
        match lock::try_acquire(&turn) {
            Ok(false) => std::thread::sleep(PAUSE),
            _ => break,
        }
    }
    Some(turn)
}

/// Removes a socket to which nobody listens.
fn clear(directory: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
    let unmade = |error: Errno| Error::unmade(path)(error.into());
    let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(unmade)?,
    };
    let path = path.to_path_buf();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Error::NotASocket { path });
    }
    let address = SocketAddrUnix::new(&path).map_err(unmade)?;
    match connect(stream_socket().map_err(unmade)?, &address) {
        Err(Errno::CONNREFUSED) => {
            log::info!("`{}` was left over, and is replaced", path.display());
            unlinkat(directory, name, AtFlags::empty()).map_err(unmade)
        }
        // Its backlog is full, or it is for sockets of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(Error::Live { path }),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(unmade(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn what_is_left_over_is_replaced_and_what_lives_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("v.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = SocketFile::make(&path).unwrap();
        let mode = path.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        let error = SocketFile::make(&path).unwrap_err();
        assert!(matches!(error, Error::Live { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
        let _other = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(SocketFile::make(&path), Err(Error::Live { .. })));
    }

    #[test]
    fn other_files_stay_as_they_are() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("v.sock");
        std::fs::write(&path, "text").unwrap();
        assert!(matches!(
            SocketFile::make(&path),
            Err(Error::NotASocket { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        std::fs::remove_file(&path).unwrap();
        // A link could lead anywhere.
        symlink(place.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(
            SocketFile::make(&path),
            Err(Error::NotASocket { .. })
        ));
        let nowhere = place.path().join("nowhere/v.sock");
        let error = SocketFile::make(&nowhere).unwrap_err();
        assert!(matches!(error, Error::Unmade { .. }), "{error}");
    }

    #[test]
    fn only_what_was_made_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("v.sock");
        let first = SocketFile::make(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        SocketFile::make(&path).unwrap().abandon();
        assert!(path.exists());
    }

    #[test]
    fn two_at_once_are_one() {
        let place = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let path = place.path().join("v.sock");
            drop(UnixListener::bind(&path).unwrap());
            let made: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| SocketFile::make(&path)))
                    .collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert_eq!(made.iter().filter(|it| it.is_ok()).count(), 1);
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn ports_of_the_host_are_sockets_beside_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("v.sock");
        let file = SocketFile::make(&path).unwrap();
        let beside = |port: u32| place.path().join(format!("v.sock_{port}"));
        let _listener = UnixListener::bind(beside(1024)).unwrap();
        file.connect_beside(1024).unwrap();
        assert!(file.connect_beside(1).is_err());
        std::fs::write(beside(2), "text").unwrap();
        symlink(beside(1024), beside(3)).unwrap();
        drop(UnixListener::bind(beside(4)).unwrap());
        for port in [2, 3, 4] {
            assert!(file.connect_beside(port).is_err(), "{port}");
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(beside(1024), Some(12345), None).unwrap();
            assert!(file.connect_beside(1024).is_err());
            std::os::unix::fs::chown(place.path(), Some(12345), None).unwrap();
            drop(file);
            let file = SocketFile::make(&path).unwrap();
            file.connect_beside(1024).unwrap();
        }
    }
}
