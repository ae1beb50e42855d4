//! Numbers, and descriptors that go along with them, from one process of kvmlet's to another.

use kvmlet_control::{receive_all, send_with};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Two ends, which keep the bounds of messages.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Says something; whoever is gone does not hear it.
pub(crate) fn say(
    socket: impl AsFd,
    number: i32,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_with(
        socket,
        &number.to_ne_bytes(),
        descriptors,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// What is said next; none when nobody is there any more.
pub(crate) fn hear(socket: impl AsFd) -> io::Result<Option<(i32, Vec<OwnedFd>)>> {
    let mut bytes = [0; 4];
    let (count, descriptors) = receive_all(socket, &mut bytes, RecvFlags::empty())?;
    match count {
        4 => Ok(Some((i32::from_ne_bytes(bytes), descriptors))),
        0 => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
