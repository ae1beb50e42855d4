//! One connection: what either side has said, and what the guest is to be told.
//!
//! A guest and a program of the host are each of two minds: each direction ends by itself (virtio 1.2 §5.10.6.5). What
//! the host's program sends stays in its socket until the guest has room; what the guest sends goes to the socket at once,
//! and what that does not take, into a backlog as large as the guest was promised.

mod stream;

pub(super) use stream::Read;

use super::backlog::Backlog;
use super::credit::{Credit, Window};
use super::packet::{Closed, HEADER_BYTES, HOST_CID, Header, LARGEST_DATA, Operation, STREAM};
use crate::devices::virtio::iovecs::Spare;
use crate::devices::virtio::{Broken, Chain};
use crate::memory::GuestRam;
use rustix::event::epoll::EventFlags;
use rustix::net::{Shutdown, shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a side may take to answer a request. (A guest's driver may be up long before its service; that answers at
/// once, by a refusal.)
const ANSWER: Duration = Duration::from_secs(10);
/// How long the guest may take to agree to an end (Linux waits 8 s for ours).
const AGREEMENT: Duration = Duration::from_secs(8);
/// How long a program of the host may leave the end of what a guest has sent, without taking any of it.
const LINGER: Duration = Duration::from_secs(30);
/// The most receive buffers that one read fills.
pub(super) const MOST_BUFFERS: usize = 16;

/// By which a connection is known in the guest (§5.10.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub host: u32,
    pub guest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest has requested it, and the host is asked.
    Asked,
    /// A program of the host has requested it, and the guest is asked.
    Offered,
    /// Both have agreed.
    Open,
    /// The guest is to be told of its end, and hears of nothing else.
    Ending,
    /// It is nothing to the guest any more; what it has sent is still on its way.
    Left,
    /// It is nothing to anybody.
    Gone,
}

/// What the guest is to be told next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet without data.
    Control(Operation),
    /// Data.
    Data {
        /// No more than that many bytes.
        most: usize,
        /// In no more receive buffers than that.
        buffers: usize,
    },
}

/// A packet from the guest, in the guest's memory.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub header: Header,
    pub memory: &'a GuestRam,
    pub chain: &'a Chain,
}

pub(super) struct Connection {
    ports: Ports,
    phase: Phase,
    stream: Option<OwnedFd>,
    credit: Credit,
    window: Window,
    backlog: Backlog,
    /// What the guest has closed, and what the host has.
    guest: Closed,
    host: Closed,
    /// The host's program is gone, but for what it has sent.
    hung_up: bool,
    /// The stream has something, or may have.
    readable: bool,
    /// To be told: the request or its answer; what the host has closed; credit.
    opens: bool,
    closes: bool,
    updates: bool,
    /// The guest was asked for credit and has not answered.
    asked_credit: bool,
    deadline: Option<Instant>,
    /// How many receive buffers the next read may take: small messages take one each.
    appetite: usize,
    /// What is noted of it elsewhere.
    pub standing: Standing,
}

/// What was noted of a connection where it waits for its turn.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// It is among those that have something for the guest.
    pub queued: bool,
    /// Its stream is among those that are watched.
    pub watched: bool,
    /// For what, until that comes.
    pub armed: Option<EventFlags>,
    /// When it is looked at again.
    pub alarm: Option<Instant>,
}

impl Connection {
    /// One that the guest wants.
    pub fn asked(ports: Ports, buffer: u32, header: &Header, now: Instant) -> Self {
        let mut new = Self::new(ports, Phase::Asked, buffer, now);
        new.credit.update(header.buf_alloc, header.fwd_cnt);
        new
    }

    /// One that a program of the host wants.
    pub fn offered(ports: Ports, buffer: u32, stream: OwnedFd, now: Instant) -> Self {
        let mut new = Self::new(ports, Phase::Offered, buffer, now);
        new.stream = Some(stream);
        new.opens = true;
        new
    }

    fn new(ports: Ports, phase: Phase, buffer: u32, now: Instant) -> Self {
        Self {
            ports,
            phase,
            stream: None,
            credit: Credit::default(),
            window: Window::new(buffer),
            backlog: Backlog::default(),
            guest: Closed::default(),
            host: Closed::default(),
            hung_up: false,
            readable: false,
            opens: false,
            closes: false,
            updates: false,
            asked_credit: false,
            deadline: Some(now + ANSWER),
            appetite: 1,
            standing: Standing::default(),
        }
    }

    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// What the guest was promised, in bytes.
    pub fn buffer(&self) -> u32 {
        self.window.buffer()
    }

    pub fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// When its patience ends, if somebody else does nothing.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The guest knows of it, or is to hear of it: nobody else has its ports.
    pub fn is_the_guests(&self) -> bool {
        !matches!(self.phase, Phase::Left | Phase::Gone)
    }

    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// What is to be waited for at its stream; none if that is not to be looked at.
    pub fn interest(&self) -> Option<EventFlags> {
        self.stream.as_ref()?;
        let reads = self.phase == Phase::Open
            && !(self.readable || self.host.sending || self.guest.receiving);
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, reads);
        interest.set(EventFlags::OUT, !self.backlog.is_empty());
        // That it hangs up is always told.
        (!interest.is_empty() || !self.hung_up).then_some(interest)
    }

    /// The host has answered: this is whom the guest wants.
    pub fn connected(&mut self, stream: OwnedFd) {
        if self.phase == Phase::Asked {
            self.stream = Some(stream);
            self.opens = true;
            self.open();
        }
    }

    /// The host has nobody, or a side has broken the rules: it ends at once.
    pub fn fail(&mut self) {
        self.backlog.clear();
        self.stream = None;
        self.end();
    }

    /// Its deadline has passed.
    pub fn expire(&mut self) {
        self.deadline = None;
        match self.phase {
            Phase::Left => self.phase = Phase::Gone,
            Phase::Gone | Phase::Ending => {}
            Phase::Asked | Phase::Offered | Phase::Open => self.fail(),
        }
    }

    fn open(&mut self) {
        self.phase = Phase::Open;
        self.deadline = None;
    }

    /// The guest is to hear of its end.
    fn end(&mut self) {
        self.phase = Phase::Ending;
        self.deadline = None;
    }

    /// The guest has no more to do with it.
    fn leave(&mut self, now: Instant) {
        match self.backlog.is_empty() || self.stream.is_none() {
            true => self.phase = Phase::Gone,
            false => {
                self.phase = Phase::Left;
                self.deadline = Some(now + LINGER);
            }
        }
    }

    /// Takes a packet of the guest's.
    pub fn hear(&mut self, sent: Sent<'_>, spare: &mut Spare, now: Instant) -> Result<(), Broken> {
        let header = &sent.header;
        let operation = Operation::of(header);
        if operation == Some(Operation::Reset) {
            self.leave(now);
            return Ok(());
        }
        if self.phase == Phase::Ending {
            // It does not know yet.
            return Ok(());
        }
        self.credit.update(header.buf_alloc, header.fwd_cnt);
        self.asked_credit &= self.credit.available() == 0;
        let is_bare = header.len == 0;
        let goes_on = match (self.phase, operation) {
            (Phase::Open, Some(Operation::Data)) => self.pass_on(sent, spare)?,
            (Phase::Offered, Some(Operation::Response)) if is_bare => self.accepted(),
            (Phase::Open, Some(Operation::Shutdown)) if is_bare => {
                self.shut(Closed::from_flags(header.flags), now);
                true
            }
            (Phase::Open, Some(Operation::CreditUpdate)) if is_bare => true,
            (Phase::Open, Some(Operation::CreditRequest)) if is_bare => {
                self.updates = true;
                true
            }
            _ => false,
        };
        if !goes_on {
            self.fail();
        }
        Ok(())
    }

    /// The guest agrees: the program of the host is told, by the port that it has.
    fn accepted(&mut self) -> bool {
        self.open();
        let greeting = format!("OK {}\n", self.ports.host);
        // Nothing has been written to it yet, so there is room.
        let stream = self.stream.as_ref();
        let written = stream.map(|stream| rustix::io::write(stream, greeting.as_bytes()));
        written == Some(Ok(greeting.len()))
    }

    /// The guest closes a direction, or both.
    fn shut(&mut self, closed: Closed, now: Instant) {
        let had_all = self.guest.is_all();
        self.guest = self.guest.and(closed);
        let Some(stream) = &self.stream else { return };
        // What fails was closed before.
        if self.guest.receiving {
            self.readable = false;
            let _ = shutdown(stream, Shutdown::Read);
        }
        if self.guest.sending && self.backlog.is_empty() {
            let _ = shutdown(stream, Shutdown::Write);
        }
        if self.guest.is_all() && !had_all {
            self.deadline = Some(now + LINGER);
            self.agree();
        }
    }

    /// A guest that has closed both directions hears of the end when all that it has sent has been taken: it may be gone
    /// a moment later, and its VM with what is here (§5.10.6.5: a clean disconnect).
    fn agree(&mut self) {
        if self.phase == Phase::Open && self.guest.is_all() && self.backlog.is_empty() {
            self.end();
        }
    }

    /// What the guest is to be told, if anything.
    pub fn next(&self) -> Option<Next> {
        match self.phase {
            Phase::Ending => Some(Next::Control(Operation::Reset)),
            Phase::Offered if self.opens => Some(Next::Control(Operation::Request)),
            Phase::Open if self.opens => Some(Next::Control(Operation::Response)),
            Phase::Open => {
                let waits = self.readable && !self.guest.receiving;
                match self.credit.available() {
                    0 if waits && !self.asked_credit => {
                        Some(Next::Control(Operation::CreditRequest))
                    }
                    credit if waits && credit > 0 => {
                        let buffers = self.appetite;
                        Some(Next::Data {
                            most: credit,
                            buffers,
                        })
                    }
                    _ if self.closes => Some(Next::Control(Operation::Shutdown)),
                    _ if self.updates => Some(Next::Control(Operation::CreditUpdate)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The header of a packet that goes to the guest now.
    pub fn tell(&mut self, what: Operation, data: usize, guest_cid: u64, now: Instant) -> Header {
        match what {
            Operation::Reset => self.leave(now),
            Operation::Request | Operation::Response => self.opens = false,
            Operation::Shutdown => {
                self.closes = false;
                if self.host.is_all() {
                    self.deadline = Some(now + AGREEMENT);
                }
            }
            Operation::CreditRequest => self.asked_credit = true,
            Operation::Data | Operation::CreditUpdate => {}
        }
        self.updates = false;
        self.credit.spend(data);
        let (buf_alloc, fwd_cnt) = self.window.tell();
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len: data as u32,
            socket_type: STREAM,
            operation: what as u16,
            flags: match what {
                Operation::Shutdown => self.host.flags(),
                _ => 0,
            },
            buf_alloc,
            fwd_cnt,
        }
    }
}

/// The largest portion of data in one packet, in a buffer of that many bytes.
pub(super) fn portion(buffer: u64) -> usize {
    let room = buffer.saturating_sub(HEADER_BYTES as u64);
    usize::try_from(room).map_or(LARGEST_DATA, |room| room.min(LARGEST_DATA))
}

#[cfg(test)]
mod tests;
