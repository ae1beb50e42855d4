//! A socket that keeps frames apart as a port: another process has its other end.

use super::port::{Offloads, Port};
use crate::devices::virtio::Iovecs;
use kvmlet_sys::frames::FrameSocket;
use std::io;

impl Port for FrameSocket {
    fn recv(&self, into: &Iovecs) -> io::Result<usize> {
        match into.read_from(self)? {
            // There are no empty frames.
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the process that carries its frames has ended",
            )),
            bytes => Ok(bytes),
        }
    }

    fn takes_offloads(&self) -> bool {
        false
    }

    fn set_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn attach(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}
