//! Between the guest's packets and the host's streams.
//!
//! Nothing of this touches guest memory but for the packet that is looked at. What the guest can make it hold is bounded:
//! connections with their buffers (see [`budget`](super::budget)), a question to the host for each, and the refusals that
//! the guest has not fetched: when there are too many, nothing more is heard of it.

use super::connection::{Connection, Next, Ports, Sent};
use super::handle::{Shared, count};
use super::host_side::{FromHost, HostSide, Question};
use super::packet::{HOST_CID, Header, Operation, STREAM};
use super::table::{Table, Token};
use super::watch::{Watch, place};
use crate::devices::virtio::Broken;
use crate::devices::virtio::iovecs::Spare;
use kvmlet_sys::thread::lock;
use rustix::event::epoll::EventFlags;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// Refusals that wait for the guest to give buffers: as many as a queue has.
const MOST_REPLIES: usize = 256;
/// What the host has to say before others have their turn.
const HOST_BATCH: usize = 64;

/// What the guest is to be sent.
pub(super) enum Work {
    /// A refusal.
    Reply(Header),
    /// Something of a connection.
    Of(Token, Next),
}

pub(super) struct Switch {
    guest_cid: u64,
    table: Table,
    replies: VecDeque<Header>,
    /// Connections with something for the guest, in turn.
    ready: VecDeque<Token>,
    /// What the host has not been asked yet.
    questions: VecDeque<Question>,
    alarms: BTreeSet<(Instant, Token)>,
    watch: Watch,
    host: Arc<dyn HostSide>,
    /// It will not say anything any more.
    host_is_gone: bool,
    shared: Arc<Shared>,
    spare: Spare,
    now: Instant,
}

impl Switch {
    pub fn new(watch: Watch, host: Arc<dyn HostSide>, shared: Arc<Shared>, now: Instant) -> Self {
        Self {
            guest_cid: shared.guest_cid,
            table: Table::default(),
            replies: VecDeque::new(),
            ready: VecDeque::new(),
            questions: VecDeque::new(),
            alarms: BTreeSet::new(),
            watch,
            host,
            host_is_gone: false,
            shared,
            spare: Spare::default(),
            now,
        }
    }

    /// Begins to listen to the host.
    pub fn open(&mut self) {
        self.watch.add(&*self.host, place::HOST, EventFlags::IN);
    }

    /// Ends all connections and does not tell the guest.
    pub fn clear(&mut self) {
        for token in self.table.tokens() {
            self.remove(token);
        }
        self.replies.clear();
        self.ready.clear();
        self.questions.clear();
    }

    /// Listens to the host no more.
    pub fn close(&mut self) {
        self.clear();
        self.watch.remove(&*self.host);
    }

    /// What time it is, for what follows; ends what was waited for in vain.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
        while let Some((due, token)) = self.alarms.first().copied() {
            if due > now {
                break;
            }
            self.alarms.remove(&(due, token));
            self.with(token, |connection, _, _| {
                connection.standing.alarm = None;
                connection.expire();
            });
        }
    }

    /// When there is something to do without anybody calling.
    pub fn alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(due, _)| *due)
    }

    /// The guest has to fetch refusals before it is heard any more.
    pub fn is_full(&self) -> bool {
        self.replies.len() >= MOST_REPLIES
    }

    /// Takes a packet of the guest's.
    pub fn hear(&mut self, sent: Sent<'_>) -> Result<(), Broken> {
        let header = sent.header;
        let counters = &self.shared.counters;
        count(&counters.packets_from_guest, 1);
        count(&counters.bytes_from_guest, header.len.into());
        let is_for_us = header.src_cid == self.guest_cid && header.dst_cid == HOST_CID;
        if !is_for_us || header.socket_type != STREAM {
            // There is nobody else, and nothing else; or it is somebody else who speaks (§5.10.6.4).
            self.refuse(header);
            return Ok(());
        }
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        if let Some(token) = self.table.find(ports) {
            let heard = self.with(token, |connection, spare, now| {
                connection.hear(sent, spare, now)
            });
            return heard.unwrap_or(Ok(()));
        }
        match Operation::of(&header) {
            Some(Operation::Request) if header.len == 0 => self.request(ports, &header),
            _ => self.refuse(header),
        }
        Ok(())
    }

    /// A refusal, unless that is what it is for.
    fn refuse(&mut self, header: Header) {
        if Operation::of(&header) != Some(Operation::Reset) {
            count(&self.shared.counters.refused, 1);
            self.replies.push_back(header.reset_of(self.guest_cid));
        }
    }

    /// The guest wants to be connected to a port of the host.
    fn request(&mut self, ports: Ports, header: &Header) {
        let now = self.now;
        let token = (!self.host_is_gone)
            .then(|| {
                let mut numbers = lock(&self.shared.numbers);
                let make = |buffer| Connection::asked(ports, buffer, header, now);
                self.table.insert(&mut numbers, make)
            })
            .flatten();
        let Some(token) = token else {
            return self.refuse(*header);
        };
        self.questions.push_back(Question {
            id: token,
            port: ports.host,
        });
        self.ask();
        self.settle(token);
    }

    /// Asks the host what it has not been asked yet.
    fn ask(&mut self) {
        while let Some(question) = self.questions.front().copied() {
            // Who has given up meanwhile is not asked for.
            if self.table.get(question.id).is_some() {
                match self.host.ask(question) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return self.lose_host(),
                }
            }
            self.questions.pop_front();
        }
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, !self.questions.is_empty());
        self.watch.change(&*self.host, place::HOST, flags);
    }

    /// The host has something to say, or can be asked again.
    pub fn hear_host(&mut self) {
        if !self.questions.is_empty() {
            self.ask();
        }
        for _ in 0..HOST_BATCH {
            if self.host_is_gone {
                return;
            }
            match self.host.receive() {
                Ok(FromHost::Connect { port, stream }) => self.offer(port, stream),
                Ok(FromHost::Connected { id, stream }) => {
                    self.with(id, |connection, _, _| connection.connected(stream));
                }
                Ok(FromHost::Refused { id }) => {
                    self.with(id, |connection, _, _| connection.fail());
                    count(&self.shared.counters.refused, 1);
                }
                Ok(FromHost::Nothing) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.lose_host(),
            }
        }
    }

    /// Whoever holds the host's sockets is gone; what is connected stays so.
    fn lose_host(&mut self) {
        self.host_is_gone = true;
        self.watch.remove(&*self.host);
        for question in std::mem::take(&mut self.questions) {
            self.with(question.id, |connection, _, _| connection.fail());
        }
    }

    /// A program of the host wants to be connected to a port of the guest.
    fn offer(&mut self, guest: u32, stream: OwnedFd) {
        let now = self.now;
        let mut numbers = lock(&self.shared.numbers);
        let host = self.table.free_port(&mut numbers, guest);
        let ports = Ports { host, guest };
        let make = |buffer| Connection::offered(ports, buffer, stream, now);
        let token = self.table.insert(&mut numbers, make);
        drop(numbers);
        match token {
            Some(token) => self.settle(token),
            // It sees its stream closed.
            None => count(&self.shared.counters.refused, 1),
        }
    }

    /// Something has happened at a stream.
    pub fn look(&mut self, token: Token, events: EventFlags) {
        self.with(token, |connection, spare, now| {
            connection.standing.armed = None;
            connection.look(events, spare, now);
        });
    }

    /// What the guest is to be sent next, which is not taken note of yet.
    pub fn next(&mut self) -> Option<Work> {
        if let Some(reply) = self.replies.front() {
            return Some(Work::Reply(*reply));
        }
        while let Some(token) = self.ready.front().copied() {
            if let Some(next) = self.table.get(token).and_then(|it| it.next()) {
                return Some(Work::Of(token, next));
            }
            self.ready.pop_front();
            if let Some(connection) = self.table.get(token) {
                connection.standing.queued = false;
            }
        }
        None
    }

    /// The refusal has been sent.
    pub fn replied(&mut self) {
        self.replies.pop_front();
    }

    /// Has a connection tell the guest what is [next](Self::next); then others have their turn.
    pub fn tell<T>(
        &mut self,
        token: Token,
        work: impl FnOnce(&mut Connection, u64, Instant) -> T,
    ) -> Option<T> {
        self.ready.pop_front();
        let guest_cid = self.guest_cid;
        self.with(token, |connection, _, now| {
            connection.standing.queued = false;
            work(connection, guest_cid, now)
        })
    }

    /// Does something to a connection, and sees to what comes of it.
    fn with<T>(
        &mut self,
        token: Token,
        work: impl FnOnce(&mut Connection, &mut Spare, Instant) -> T,
    ) -> Option<T> {
        let connection = self.table.get(token)?;
        let result = work(connection, &mut self.spare, self.now);
        self.settle(token);
        Some(result)
    }

    fn settle(&mut self, token: Token) {
        let Some(connection) = self.table.get(token) else {
            return;
        };
        if connection.is_gone() {
            self.remove(token);
            return;
        }
        if !connection.standing.queued && connection.next().is_some() {
            connection.standing.queued = true;
            self.ready.push_back(token);
        }
        self.watch.follow(connection, token);
        let deadline = connection.deadline();
        if connection.standing.alarm != deadline {
            if let Some(alarm) = connection.standing.alarm {
                self.alarms.remove(&(alarm, token));
            }
            self.alarms.extend(deadline.map(|due| (due, token)));
            connection.standing.alarm = deadline;
        }
        let (ports, is_the_guests) = (connection.ports(), connection.is_the_guests());
        if !is_the_guests {
            self.table.free_ports(token, ports);
        }
        self.shared.set_connections(self.table.len());
    }

    fn remove(&mut self, token: Token) {
        let Some(connection) = self.table.remove(token) else {
            return;
        };
        if let Some(alarm) = connection.standing.alarm {
            self.alarms.remove(&(alarm, token));
        }
        if let (Some(stream), true) = (connection.stream(), connection.standing.watched) {
            self.watch.remove(stream);
        }
        self.shared.set_connections(self.table.len());
    }
}
