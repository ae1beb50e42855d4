//! One connection with a guest: requests, one after the other, and their answers.

use super::answers::{Answers, Fields, bad};
use crate::http::{Answer, LONGEST_HEAD, Parsed, parse_with};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration as Span;
use std::time::Duration;

/// What this service calls itself, as Firecracker's does.
const SERVER: &str = "Firecracker API";
/// Where it listens.
const PORT: u16 = 80;
/// Bodies are of no use to it.
const LONGEST_BODY: usize = 1 << 10;
const MOST_RECEIVED: usize = LONGEST_HEAD + LONGEST_BODY;
/// What TCP holds of a connection.
const RECEIVED: usize = 4 << 10;
const SENT: usize = 16 << 10;
/// How long a guest may say nothing of what it was sent.
const SILENCE: Span = Span::from_secs(10);

/// A place for a connection.
#[derive(Debug)]
pub struct Connection {
    pub socket: SocketHandle,
    received: Vec<u8>,
    /// What is to be sent yet.
    sending: Vec<u8>,
    /// A guest has begun one.
    is_open: bool,
    /// It ends with what is being sent.
    closes: bool,
    /// When something came, or was taken, last.
    pub since: Duration,
}

/// What TCP has for one.
pub fn socket() -> Socket<'static> {
    let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
    let mut socket = Socket::new(buffer(RECEIVED), buffer(SENT));
    socket.set_timeout(Some(SILENCE));
    socket
}

impl Connection {
    pub fn new(socket: SocketHandle) -> Self {
        Self {
            socket,
            received: Vec::new(),
            sending: Vec::new(),
            is_open: false,
            closes: false,
            since: Duration::ZERO,
        }
    }

    /// Does what there is to do now, and says whether that was anything.
    pub fn turn(&mut self, socket: &mut Socket<'_>, now: Duration, answers: &mut Answers) -> bool {
        match socket.state() {
            State::Closed => {
                answers.counted.connections_destroyed += u64::from(self.is_open);
                *self = Self::new(self.socket);
                self.since = now;
                // It fails without a port, or when it is open.
                return socket.listen(PORT).is_ok();
            }
            State::Listen => {
                self.since = now;
                return false;
            }
            _ if !self.is_open => {
                self.is_open = true;
                answers.counted.connections_created += 1;
            }
            _ => {}
        }
        let mut has_done = self.receive(socket);
        if self.sending.is_empty() && !self.closes {
            has_done |= self.hear(now, answers);
        }
        has_done |= self.send(socket);
        let is_last = self.closes || !socket.may_recv();
        if is_last && self.sending.is_empty() && socket.may_send() {
            socket.close();
            has_done = true;
        }
        if has_done {
            self.since = now;
        }
        has_done
    }

    fn receive(&mut self, socket: &mut Socket<'_>) -> bool {
        let room = MOST_RECEIVED.saturating_sub(self.received.len());
        if !socket.can_recv() || room == 0 {
            return false;
        }
        let received = &mut self.received;
        let taken = socket.recv(|bytes| {
            let bytes = &bytes[..bytes.len().min(room)];
            received.extend(bytes);
            (bytes.len(), bytes.len())
        });
        taken.is_ok_and(|bytes| bytes > 0)
    }

    /// Answers the request that has come, if one has.
    fn hear(&mut self, now: Duration, answers: &mut Answers) -> bool {
        if self.received.is_empty() {
            return false;
        }
        let mut fields = Fields::default();
        let parsed = parse_with(&self.received, LONGEST_BODY, |name, value| {
            fields.note(name, value);
        });
        let (answer, bytes) = match parsed {
            Parsed::Partial { .. } => return false,
            Parsed::Whole(request, bytes) => {
                self.closes = request.closes || request.is_old;
                (answers.answer(&request, &fields, now), bytes)
            }
            Parsed::Bad(status, why) => {
                self.closes = true;
                (bad(status, why), self.received.len())
            }
        };
        self.received.drain(..bytes);
        self.sending = Answer::to_bytes(&answer, SERVER, self.closes);
        true
    }

    fn send(&mut self, socket: &mut Socket<'_>) -> bool {
        if self.sending.is_empty() || !socket.can_send() {
            return false;
        }
        let sent = socket.send_slice(&self.sending).unwrap_or_default();
        self.sending.drain(..sent);
        sent > 0
    }
}
