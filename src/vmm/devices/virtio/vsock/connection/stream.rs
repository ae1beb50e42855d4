//! A connection's stream: data from the guest to it, and from it to the guest.

use super::{Closed, Connection, HEADER_BYTES, LINGER, MOST_BUFFERS, Phase, Sent};
use crate::devices::virtio::Broken;
use crate::devices::virtio::iovecs::{Iovecs, Spare};
use rustix::event::epoll::EventFlags;
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::time::Instant;

/// What came of reading from the host's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Read {
    Bytes(usize),
    /// Nothing now, or the end.
    Nothing,
}

impl Connection {
    /// Takes data of the guest's; false if it was not allowed to send them.
    pub(super) fn pass_on(&mut self, sent: Sent<'_>, spare: &mut Spare) -> Result<bool, Broken> {
        let bytes = sent.header.len as usize;
        let there = sent.chain.readable_bytes() - HEADER_BYTES as u64;
        if self.guest.sending || bytes as u64 > there || !self.window.admit(sent.header.len) {
            return Ok(false);
        }
        let mut passed = 0;
        if self.host.receiving {
            passed = bytes;
        } else if let (true, Some(stream)) = (self.backlog.is_empty(), &self.stream) {
            let mut iovecs = Iovecs::reusing(spare);
            let parts = sent.chain.readable_parts(HEADER_BYTES as u64, bytes as u64);
            iovecs.push_guest(sent.memory, parts)?;
            let written = iovecs.write_to(stream);
            iovecs.put_back(spare);
            passed = match written {
                Ok(passed) => passed,
                Err(error) if is_temporary(&error) => 0,
                Err(_) => {
                    self.host_is_deaf();
                    bytes
                }
            };
        }
        if passed < bytes {
            let mut rest = vec![0; bytes - passed];
            let offset = (HEADER_BYTES + passed) as u64;
            sent.chain.read(sent.memory, offset, &mut rest)?;
            self.backlog.push(&rest);
        }
        self.forwarded(passed);
        Ok(true)
    }

    fn forwarded(&mut self, bytes: usize) {
        self.window.forward(bytes);
        self.updates |= self.window.is_worth_telling();
    }

    /// The program of the host takes nothing more.
    fn host_is_deaf(&mut self) {
        let lost = self.backlog.clear();
        self.forwarded(lost);
        self.host_closes(Closed {
            receiving: true,
            sending: false,
        });
    }

    fn host_closes(&mut self, closed: Closed) {
        let now = self.host.and(closed);
        self.closes |= now != self.host;
        self.host = now;
    }

    /// Something has happened at the stream.
    pub fn look(&mut self, events: EventFlags, spare: &mut Spare, now: Instant) {
        if events.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.hung_up = true;
            match self.phase {
                // Whoever wanted it does not any more.
                Phase::Offered => return self.fail(),
                Phase::Open => {
                    self.host_is_deaf();
                    // What it has sent is still to be read, up to the end.
                    self.readable = !self.host.sending && !self.guest.receiving;
                    self.host_closes(Closed {
                        receiving: true,
                        sending: !self.readable,
                    });
                }
                _ => {
                    self.backlog.clear();
                }
            }
        } else if events.contains(EventFlags::IN) {
            self.readable = true;
        }
        if events.contains(EventFlags::OUT) && !self.hung_up {
            self.flush(spare, now);
        }
        self.agree();
        if self.phase == Phase::Left && self.backlog.is_empty() {
            self.phase = Phase::Gone;
        }
    }

    /// Passes on what waits.
    fn flush(&mut self, spare: &mut Spare, now: Instant) {
        let Some(stream) = &self.stream else { return };
        match self.backlog.write_to(stream, spare) {
            Ok(passed) => {
                if self.phase == Phase::Left || self.guest.is_all() {
                    self.deadline = Some(now + LINGER);
                }
                if self.guest.sending && self.backlog.is_empty() {
                    let _ = shutdown(stream, Shutdown::Write);
                }
                self.forwarded(passed);
            }
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.host_is_deaf(),
        }
    }

    /// Reads what the program of the host has sent.
    pub fn read(&mut self, into: &Iovecs<'_>) -> Read {
        let Some(stream) = &self.stream else {
            return Read::Nothing;
        };
        match into.read_from(stream) {
            Ok(bytes) if bytes > 0 => {
                self.appetite = match bytes == into.bytes() {
                    true => (2 * self.appetite).min(MOST_BUFFERS),
                    false => 1,
                };
                return Read::Bytes(bytes);
            }
            Err(error) if is_temporary(&error) => {}
            ended => {
                // Who goes and has not read all that it was sent ends with an error.
                self.hung_up |= ended.is_err();
                self.host_closes(Closed {
                    receiving: self.hung_up,
                    sending: true,
                });
            }
        }
        self.readable = false;
        Read::Nothing
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
