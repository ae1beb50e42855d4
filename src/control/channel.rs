//! The socket that messages go through.

use crate::LONGEST;
use crate::passing::{receive_with, send_with};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end of a connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    One(Vec<u8>),
    /// None for now.
    None,
    /// None any more: the other end is closed.
    Last,
}

impl Channel {
    /// Both ends of a new one.
    ///
    /// # Errors
    /// When the host gives no socket.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message, and waits until there is room for it.
    ///
    /// # Errors
    /// When nobody is there to receive it.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        loop {
            match send(&self.0, message, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return Ok(result.map(drop)?),
            }
        }
    }

    /// Sends a message if there is room for it: a reader that stands still keeps nobody from other work.
    ///
    /// # Errors
    /// When there is none ([`WouldBlock`](io::ErrorKind::WouldBlock)), or nobody is there to receive it.
    pub fn try_send(&self, message: &[u8]) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(send(&self.0, message, flags).map(drop)?)
    }

    /// Sends a message with a descriptor, if there is room for it.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_send_with(&self, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(send_with(&self.0, message, &[descriptor], flags).map(drop)?)
    }

    /// As [`receive`](Self::receive), with the descriptor that the message came with, if it did.
    pub fn receive_with(&self, longest: usize) -> (Received, Option<OwnedFd>) {
        let mut message = vec![0; longest.min(LONGEST)];
        let received = match receive_with(&self.0, &mut message) {
            // As below.
            Err(Errno::CONNRESET) => receive_with(&self.0, &mut message),
            received => received,
        };
        match received {
            Ok((count @ 1.., descriptor)) => {
                message.truncate(count);
                (Received::One(message), descriptor)
            }
            Err(Errno::AGAIN | Errno::INTR) => (Received::None, None),
            Ok(_) | Err(_) => (Received::Last, None),
        }
    }

    /// Takes one message of at most `longest` bytes, if one has come. Of a longer one the rest is lost.
    pub fn receive(&self, longest: usize) -> Received {
        // Zeros would take memory for good of each process that ever has a message of a few bytes.
        let mut message = Vec::with_capacity(longest.min(LONGEST));
        let mut receive = || {
            let place = spare_capacity(&mut message);
            recv(&self.0, place, RecvFlags::DONTWAIT).map(|_| ())
        };
        let received = match receive() {
            // The other end was closed before it had read all: that is told once, and before what it had sent.
            Err(Errno::CONNRESET) => receive(),
            received => received,
        };
        match received {
            Ok(()) if !message.is_empty() => Received::One(message),
            Err(Errno::AGAIN | Errno::INTR) => Received::None,
            Ok(_) | Err(_) => Received::Last,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}
