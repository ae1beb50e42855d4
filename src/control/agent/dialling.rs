//! Reaching the agent in a guest.

use super::Agent;
use super::channel::AGENT_PORT;
use crate::connected;
use crate::connection::until;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest answer: `OK`, and a port.
const ANSWER: usize = 32;

/// A connection to the agent in a guest that is being made, through the socket that leads to all of its ports.
#[derive(Debug)]
pub struct Dialling {
    stream: OwnedFd,
    answer: Vec<u8>,
}

impl Dialling {
    /// Begins, over a connection to that socket.
    ///
    /// # Errors
    /// What the kernel says: the VM has ended meanwhile.
    pub fn over(stream: OwnedFd) -> io::Result<Self> {
        // There is room for it in a new socket.
        let line = format!("CONNECT {AGENT_PORT}\n");
        send(&stream, line.as_bytes(), SendFlags::NOSIGNAL)?;
        let answer = Vec::new();
        Ok(Self { stream, answer })
    }

    /// Hears what there is without waiting; true once it is connected.
    ///
    /// # Errors
    /// When nobody listens in the guest.
    pub fn turn(&mut self) -> io::Result<bool> {
        // Byte by byte: what is behind it is the agent's.
        while self.answer.last() != Some(&b'\n') {
            let mut byte = [0];
            match recv(&self.stream, &mut byte, RecvFlags::DONTWAIT) {
                Ok((1, _)) if self.answer.len() < ANSWER => self.answer.extend(byte),
                Ok(_) | Err(Errno::CONNRESET) => {
                    return Err(io::Error::other("its guest listens to nobody"));
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.answer.starts_with(b"OK ") {
            true => Ok(true),
            false => Err(io::Error::other(
                "its supervisor does not answer as it should",
            )),
        }
    }

    /// The agent, once it is connected.
    pub fn agent(self) -> Agent {
        Agent::new(self.stream)
    }
}

/// Readable when there is something to hear.
impl AsFd for Dialling {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Agent {
    /// Connects to the agent in a guest, through the socket that leads to all of its ports: `vsock` in the directory of an
    /// instance. The guest has `patience` to answer.
    ///
    /// # Errors
    /// When nobody is there, or the guest listens to nobody.
    pub fn reach(socket: &Path, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        let mut dialling = Dialling::over(connected(socket)?)?;
        while !dialling.turn()? {
            if !until(dialling.as_fd(), PollFlags::IN, Some(deadline))? {
                let seconds = patience.as_secs();
                return Err(io::Error::other(format!(
                    "its guest has not answered in {seconds} s"
                )));
            }
        }
        Ok(dialling.agent())
    }
}
