//! Addresses of sockets by their paths.

use rustix::fd::AsRawFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// The address of a socket, whose path may be longer than one has room for (107 bytes, unix(7)): good as long as the descriptor
/// beside it is open.
pub(crate) fn of(path: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    match SocketAddrUnix::new(path) {
        Err(Errno::NAMETOOLONG) => {}
        address => return Ok((address?, None)),
    }
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let around = path.parent().filter(|it| !it.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let around = openat(CWD, around.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/", around.as_raw_fd());
    Ok((
        SocketAddrUnix::new(Path::new(&short).join(name))?,
        Some(around),
    ))
}

/// How long others may stand before who wants to be connected.
const CONNECTING: Duration = Duration::from_secs(5);

/// Connects to a stream socket: whoever listens there has 5 s to have room for one more.
///
/// # Errors
/// What the kernel says; [`TimedOut`](io::ErrorKind::TimedOut) then.
pub fn connected(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // How long a stream socket waits to be connected, too: others may stand before it (unix(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECTING))?;
    let (address, _around) = of(path)?;
    match connect(&socket, &address) {
        Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        connected => connected?,
    }
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use crate::Connection;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_is_found_by_a_long_path() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        // A socket is given its name by a shorter way.
        let short = place.path().join("s");
        let listener = UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, deep.join("control.sock")).unwrap();
        let connection = Connection::to(&deep.join("control.sock"));
        assert!(connection.is_ok() && listener.accept().is_ok());
        assert!(Connection::to(&deep.join("none")).is_err());
        assert!(Connection::to(&deep.join("f".repeat(300))).is_err());
    }
}
