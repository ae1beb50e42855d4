//! Listening sockets in the directory of an instance.

use kvmlet_control::agent::Agent;
use kvmlet_sys::acceptor::{Acceptor, Peers};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use rustix::event::PollFlags;
use rustix::fs::{AtFlags, Mode, chmodat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

/// What is to be waited for at a connection to an agent.
pub fn slot_of(agent: &Agent) -> Slot<'_> {
    match agent.interest().contains(PollFlags::OUT) {
        true => Slot::usable(agent.as_fd()),
        false => Slot::readable(agent.as_fd()),
    }
}

/// A socket by its name in a directory that is long, perhaps longer than the address of a socket may be. It is removed when
/// this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    acceptor: Acceptor,
    directory: Directory,
    name: String,
}

/// The path of a socket in a directory, by the directory that is open.
pub(super) fn path(directory: &Directory, name: &str) -> PathBuf {
    let fd = directory.as_fd().as_raw_fd();
    format!("/proc/self/fd/{fd}/{name}").into()
}

/// Its address.
pub(crate) fn address(directory: &Directory, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(path(directory, name))?)
}

impl Listener {
    /// Begins to listen. A socket of that name is one that a killed supervisor has left, for whoever calls owns the
    /// instance.
    pub fn new(directory: &Directory, name: &str, backlog: i32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        directory.remove(name)?;
        bind(&socket, &address(directory, name)?)?;
        let this = Self {
            socket,
            acceptor: Acceptor::new(Peers::OwnUser),
            directory: directory.try_clone()?,
            name: name.into(),
        };
        // Nobody can connect before it listens.
        let mode = Mode::RUSR | Mode::WUSR;
        chmodat(&this.directory, name, mode, AtFlags::empty())?;
        listen(&this.socket, backlog)?;
        Ok(this)
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        self.acceptor.slot(self.socket.as_fd())
    }

    /// When [`accept`](Self::accept) is to be called without that.
    pub fn due(&self) -> Option<Instant> {
        self.acceptor.due()
    }

    /// Who has connected, if somebody has who may.
    pub fn accept(&mut self) -> Option<OwnedFd> {
        self.acceptor.accept(self.socket.as_fd())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.directory.remove(&self.name);
    }
}
