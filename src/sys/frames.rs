//! Sockets that keep frames apart: what goes in by one call comes out by one.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One of the two ends. It never blocks.
#[derive(Debug)]
pub struct FrameSocket(OwnedFd);

impl FrameSocket {
    /// Both ends.
    ///
    /// # Errors
    /// When this process may have no more descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::SEQPACKET;
        let (near, far) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        Ok((Self(near), Self(far)))
    }
}

impl From<FrameSocket> for OwnedFd {
    fn from(socket: FrameSocket) -> Self {
        socket.0
    }
}

impl AsFd for FrameSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
