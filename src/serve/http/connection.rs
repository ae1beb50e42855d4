//! A client that is connected.
//!
//! What it can make this process hold is bounded: one request and one answer. Its next request is read when that was sent.

use super::manner::Manner;
use super::request::{LONGEST_HEAD, Method, Parsed, Request, parse};
use super::{Along, Answer};
use kvmlet_control::receive_all;
use kvmlet_sys::kin::Peer;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Read at once.
const READ_BYTES: usize = 16 << 10;
/// How long a client may take to send a request that it has begun, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one that is silent, sends slowly or reads slowly keeps its place while others want it.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What has come of listening to a client.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing whole.
    Nothing,
    /// A request, which is to be answered.
    Request(Request),
    /// Nothing that is understood: its answer.
    Bad(u16, String),
    /// It is gone.
    End,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: OwnedFd,
    incoming: Vec<u8>,
    /// What has come along with that.
    along: Along,
    outgoing: Vec<u8>,
    sent: usize,
    /// It waits for an answer: nothing is read of it until then.
    waits: bool,
    /// It is closed when it has read its answer.
    closes: bool,
    /// Its answer has no end yet.
    streams: bool,
    /// It wants no body.
    is_head: bool,
    /// It was told to send the body.
    continued: bool,
    /// It has no seat: as many are served as may be, beside it.
    pub surplus: bool,
    /// It was answered once at least.
    answered: bool,
    /// The number of the user whose process it is, if the kernel says.
    user: Option<u32>,
    /// Since when it has kept this process waiting, or been idle.
    since: Instant,
}

impl Connection {
    pub fn new(stream: OwnedFd, surplus: bool) -> Self {
        let user = Peer::of(&stream).ok().map(|peer| peer.uid.as_raw());
        Self {
            user,
            stream,
            incoming: Vec::new(),
            along: Along::default(),
            outgoing: Vec::new(),
            sent: 0,
            waits: false,
            closes: false,
            streams: false,
            is_head: false,
            continued: false,
            surplus,
            answered: false,
            since: Instant::now(),
        }
    }

    /// The number of the user whose process it is.
    pub const fn user(&self) -> Option<u32> {
        self.user
    }

    /// What is waited for on its behalf.
    pub fn slot(&self) -> Slot<'_> {
        if self.streams && !self.outgoing.is_empty() {
            return Slot::usable(self.stream.as_fd());
        }
        match (self.outgoing.is_empty(), self.waits) {
            (false, _) => Slot::writable(self.stream.as_fd()),
            (true, true) => Slot::broken(self.stream.as_fd()),
            (true, false) => Slot::readable(self.stream.as_fd()),
        }
    }

    /// Has it closed its end while it is to be answered? One that has only said its last word waits for the answer.
    pub fn is_gone(&self) -> bool {
        let end = Slot::broken(self.stream.as_fd());
        self.waits && wait::one(end, Until::Now).unwrap_or(true)
    }

    /// Until when it has to have sent, or read, more. One that is served may be silent between two requests.
    pub fn due(&self) -> Option<Instant> {
        let patience = match self.surplus && self.outgoing.is_empty() {
            true => GRACE,
            false => PATIENCE,
        };
        let is_busy = !self.incoming.is_empty() || !self.outgoing.is_empty() || self.surplus;
        (is_busy && !self.waits).then(|| self.since + patience)
    }

    /// From when on it makes room for others that want to be served; never while it waits for this process.
    pub fn yields_from(&self) -> Option<Instant> {
        let grace = match self.is_idle() {
            true => Duration::ZERO,
            false => GRACE,
        };
        (!self.waits && !self.streams).then(|| self.since + grace)
    }

    /// It has its answers, and asks for nothing more.
    fn is_idle(&self) -> bool {
        self.answered && self.incoming.is_empty() && self.outgoing.is_empty()
    }

    /// It has sent a part of a request, and waits to be told nothing.
    pub fn has_begun(&self) -> bool {
        !self.incoming.is_empty() && self.outgoing.is_empty() && !self.waits
    }

    /// It is told that it has no seat, which is the last that it is told.
    pub fn is_refused(&self) -> bool {
        self.surplus && !self.outgoing.is_empty()
    }

    /// Reads what has come.
    pub fn listen(&mut self, manner: &Manner) -> Heard {
        if self.streams {
            return self.overhear();
        }
        if self.waits || !self.outgoing.is_empty() {
            return Heard::Nothing;
        }
        // What has come with the request before is a request already, maybe.
        match self.parse(manner) {
            Heard::Nothing => {}
            heard => return heard,
        }
        let room = (LONGEST_HEAD + manner.longest_body).saturating_sub(self.incoming.len());
        let mut bytes = [0; READ_BYTES];
        let read = bytes.len().min(room);
        match self.receive(&mut bytes[..read], manner.descriptors) {
            Ok(count @ 1..) => {
                if self.incoming.is_empty() {
                    self.since = Instant::now();
                }
                self.incoming.extend_from_slice(&bytes[..count]);
                self.parse(manner)
            }
            Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            Ok(_) | Err(_) => Heard::End,
        }
    }

    /// Without a place for descriptors the kernel closes those that come.
    fn receive(&mut self, bytes: &mut [u8], descriptors: usize) -> Result<usize, Errno> {
        if descriptors == 0 {
            return recv(&self.stream, bytes, RecvFlags::DONTWAIT).map(|(count, _)| count);
        }
        let (count, came) = receive_all(&self.stream, bytes, RecvFlags::DONTWAIT)?;
        self.along.add(came, descriptors);
        Ok(count)
    }

    /// What has come along with the request that waits for its answer.
    pub fn along(&mut self) -> Along {
        std::mem::take(&mut self.along)
    }

    /// Is it still there? What it says is not heard any more.
    fn overhear(&mut self) -> Heard {
        let mut bytes = [0; 512];
        match recv(&self.stream, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            Ok(_) | Err(_) => Heard::End,
        }
    }

    fn parse(&mut self, manner: &Manner) -> Heard {
        if self.incoming.is_empty() {
            return Heard::Nothing;
        }
        match parse(&self.incoming, manner.longest_body, manner.comes) {
            Parsed::Partial { expects } => {
                if expects && !self.continued {
                    self.continued = true;
                    self.outgoing.extend_from_slice(b"HTTP/1.1 100 \r\n\r\n");
                    self.send();
                }
                Heard::Nothing
            }
            Parsed::Whole(request, length) => {
                self.incoming.drain(..length);
                // Of a long body nothing is kept.
                self.incoming.shrink_to(READ_BYTES);
                let closes = request.closes || (request.is_old && !manner.old_go_on);
                (self.waits, self.closes, self.continued) = (true, closes, false);
                self.is_head = request.method == Method::Head;
                Heard::Request(request)
            }
            Parsed::Bad(status, why) => {
                (self.waits, self.closes) = (true, true);
                Heard::Bad(status, why)
            }
        }
    }

    /// What it is connected by, and what it has sent behind its request: somebody else speaks with it from now on.
    pub fn part(self) -> (OwnedFd, Vec<u8>) {
        (self.stream, self.incoming)
    }

    /// Answers its request.
    pub fn answer(&mut self, answer: &Answer, server: &str) {
        self.closes |= self.surplus;
        // What nobody has asked for.
        self.along = Along::default();
        (self.waits, self.answered) = (false, true);
        self.since = Instant::now();
        let mut bytes = answer.to_bytes(server, self.closes);
        if std::mem::take(&mut self.is_head) {
            bytes.truncate(bytes.len() - answer.body.as_ref().map_or(0, String::len));
        }
        self.outgoing.extend(bytes);
    }

    /// Begins an answer that has no end yet.
    pub fn stream(&mut self, answer: &Answer, server: &str) {
        (self.waits, self.answered, self.streams) = (false, true, true);
        self.push(&answer.to_head(server));
    }

    /// That was all of it.
    pub fn end(&mut self) {
        (self.streams, self.closes) = (false, true);
    }

    /// Goes on with it.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.outgoing.is_empty() {
            self.since = Instant::now();
        }
        self.outgoing.extend_from_slice(bytes);
    }

    /// Answers it for the last time. Whether it reads that is not waited for.
    pub fn dismiss(mut self, answer: &Answer, server: &str) {
        self.closes = true;
        self.answer(answer, server);
        self.send();
    }

    /// Sends what there is room for. False if there is no more to say to it.
    pub fn send(&mut self) -> bool {
        while let Some(rest @ [_, ..]) = self.outgoing.get(self.sent..) {
            match send(
                &self.stream,
                rest,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => {
                    self.sent += count;
                    self.since = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        let has_sent = self.sent > 0 || (self.closes && self.answered);
        (self.outgoing, self.sent) = (Vec::new(), 0);
        !has_sent || !self.closes || self.waits || self.streams
    }

    /// It has read all that it is told.
    pub fn is_told(&self) -> bool {
        self.outgoing.is_empty()
    }
}
