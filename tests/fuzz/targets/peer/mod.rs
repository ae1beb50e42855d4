//! A program at the other end of a socket, and how it comes there.

#![allow(dead_code)] // each target uses its part

use rustix::net::SendFlags;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A name that is no file's.
pub struct Address(SocketAddr);

impl Address {
    pub fn of(what: &str) -> Self {
        let name = format!("kvmlet-fuzz-{what}-{}", std::process::id());
        Self(SocketAddr::from_abstract_name(name).expect("a short name"))
    }

    pub fn listen(&self) -> UnixListener {
        UnixListener::bind_addr(&self.0).expect("a name that nobody has")
    }

    pub fn connect(&self) -> UnixStream {
        patient(UnixStream::connect_addr(&self.0))
    }
}

/// A directory of this process's own, in which there are sockets while something listens.
pub struct Place(PathBuf);

impl Place {
    pub fn of(what: &str) -> Self {
        let name = format!("kvmlet-fuzz-{what}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory that nobody has");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn connect(&self, name: &str) -> UnixStream {
        patient(UnixStream::connect(self.0.join(name)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn patient(stream: std::io::Result<UnixStream>) -> UnixStream {
    let stream = stream.expect("somebody listens");
    stream
        .set_nonblocking(true)
        .expect("a socket that does not wait");
    stream
}

/// It waits for nothing.
pub struct Peer(UnixStream);

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Sends what there is room for.
    pub fn say(&mut self, bytes: &[u8]) {
        // It may have been closed.
        let _ = self.0.write(bytes);
    }

    /// The same, with as many descriptors.
    pub fn say_with(&mut self, bytes: &[u8], count: usize) {
        let stdin = std::io::stdin();
        let along = vec![stdin.as_fd(); count];
        let flags = SendFlags::NOSIGNAL;
        let _ = kvmlet_control::send_with(&self.0, bytes, &along, flags);
    }

    /// Takes that many bytes, as far as there are.
    pub fn hear(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let count = self.0.read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// Says nothing more.
    pub fn shut(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
