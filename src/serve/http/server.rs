//! Those who are connected to a socket, and what they want.

use super::connection::{Connection, Heard};
use super::manner::Manner;
use super::request::Request;
use super::{Along, Answer};
use kvmlet_sys::acceptor::Acceptor;
use kvmlet_sys::wait::{self, Slot, Until};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Programs beside them that are about to be told so, or read that.
const MOST_REFUSED: usize = 10;
/// Accepted in a turn, after which those who are there already are heard again.
const MOST_NEW: usize = 32;
/// How long clients have to read their last answers.
const LAST: Duration = Duration::from_millis(200);

/// What a client is known by, as long as it is there.
pub type ClientId = u32;

/// A socket that listens, with those who are connected.
#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    acceptor: Acceptor,
    connections: BTreeMap<ClientId, Connection>,
    last: ClientId,
    /// Requests that nobody has taken yet, in the order in which they came.
    requests: VecDeque<(ClientId, Request)>,
    manner: Manner,
}

impl Server {
    /// One that nobody has been accepted at. The socket does not block.
    pub fn new(listener: OwnedFd, manner: Manner) -> Self {
        Self {
            listener,
            acceptor: Acceptor::new(manner.peers),
            connections: BTreeMap::new(),
            last: 0,
            requests: VecDeque::new(),
            manner,
        }
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let listener = self.acceptor.slot(self.listener.as_fd());
        let connections = self.connections.values();
        connections.map(Connection::slot).chain([listener])
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let connections = self.connections.values().filter_map(Connection::due);
        connections.chain(self.acceptor.due()).min()
    }

    /// Does what there is to do now.
    pub fn turn(&mut self) {
        let now = Instant::now();
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(client) = self.connections.get_mut(&id) else {
                continue;
            };
            if client.is_gone() || !client.send() {
                self.connections.remove(&id);
                continue;
            }
            self.listen(id);
            let late = |client: &Connection| client.due().is_some_and(|due| due <= now);
            if self.connections.get(&id).is_some_and(late) {
                self.close(id);
            }
        }
        self.accept();
    }

    /// Listens to a client, and answers what is no request.
    fn listen(&mut self, id: ClientId) {
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        let answer = match client.listen(&self.manner) {
            Heard::Nothing => return,
            Heard::End => return drop(self.connections.remove(&id)),
            Heard::Request(request) if self.has_seat(id) => {
                return self.requests.push_back((id, request));
            }
            Heard::Request(_) => self.too_many(),
            Heard::Bad(status, why) => (self.manner.refuse)(status, &why),
        };
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        client.answer(&answer, self.manner.name);
        if !client.send() {
            self.connections.remove(&id);
        }
    }

    /// The request that is to be answered next.
    pub fn next_request(&mut self) -> Option<(ClientId, Request)> {
        self.requests.pop_front()
    }

    /// Answers a request. Nobody is told who has gone away meanwhile.
    pub fn answer(&mut self, id: ClientId, answer: &Answer) {
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        client.answer(answer, self.manner.name);
        match client.send() {
            // What it has sent already is not told by the kernel again.
            true => self.listen(id),
            false => drop(self.connections.remove(&id)),
        }
    }

    /// What has come along with the request that a client waits to be answered.
    pub fn along(&mut self, id: ClientId) -> Along {
        let client = self.connections.get_mut(&id);
        client.map(Connection::along).unwrap_or_default()
    }

    /// Leaves a client that waits for an answer to somebody else, with what it has sent behind its request. It has no seat any more.
    pub fn part(&mut self, id: ClientId) -> Option<(OwnedFd, Vec<u8>)> {
        self.connections.remove(&id).map(Connection::part)
    }

    /// Answers a request without an end: what there is to say is [pushed](Self::push) as it comes.
    pub fn stream(&mut self, id: ClientId, answer: &Answer) {
        if let Some(client) = self.connections.get_mut(&id) {
            client.stream(answer, self.manner.name);
        }
    }

    /// Goes on with such an answer. What there is no room for waits.
    pub fn push(&mut self, id: ClientId, bytes: &[u8]) {
        if let Some(client) = self.connections.get_mut(&id) {
            client.push(bytes);
            if !client.send() {
                self.connections.remove(&id);
            }
        }
    }

    /// That was all of it: the connection is closed.
    pub fn end(&mut self, id: ClientId) {
        if let Some(client) = self.connections.get_mut(&id) {
            client.end();
            if !client.send() {
                self.connections.remove(&id);
            }
        }
    }

    /// The number of the user whose process a client is.
    pub fn user(&self, id: ClientId) -> Option<u32> {
        self.connections.get(&id)?.user()
    }

    /// Is a client there?
    pub fn has(&self, id: ClientId) -> bool {
        self.connections.contains_key(&id)
    }

    /// Has a client read all that it was told? None if it is gone.
    pub fn has_read(&self, id: ClientId) -> Option<bool> {
        self.connections.get(&id).map(Connection::is_told)
    }

    /// Has clients read what they were answered, for a short while.
    pub fn finish(mut self) -> io::Result<()> {
        let until = Until::after(LAST);
        loop {
            self.connections.retain(|_, it| it.send() && !it.is_told());
            if self.connections.is_empty() {
                return Ok(());
            }
            let mut slots: Vec<_> = self.connections.values().map(Connection::slot).collect();
            wait::any_of(&mut slots, until)?;
            if !slots.iter().any(Slot::is_ready) {
                return Ok(());
            }
        }
    }

    /// Is this one served? One without a seat has it from now on, if there is one or somebody makes room.
    fn has_seat(&mut self, id: ClientId) -> bool {
        if self
            .connections
            .get(&id)
            .is_none_or(|client| client.surplus)
            && !self.has_room()
        {
            return false;
        }
        if let Some(client) = self.connections.get_mut(&id) {
            client.surplus = false;
        }
        true
    }

    /// Is there a seat? Of those who keep one without need, the one that has done so longest gives it up: clients that pool
    /// connections, and those that are slow, would take all.
    fn has_room(&mut self) -> bool {
        let served = || self.connections.iter().filter(|(_, it)| !it.surplus);
        if served().count() < self.manner.seats {
            return true;
        }
        let now = Instant::now();
        let yields = served().filter_map(|(id, client)| Some((client.yields_from()?, *id)));
        match yields.filter(|(from, _)| *from <= now).min() {
            Some((_, id)) => {
                self.close(id);
                true
            }
            None => false,
        }
    }

    /// Closes a connection, with a word to who waits for one: that is not waited for.
    fn close(&mut self, id: ClientId) {
        let Some(client) = self.connections.remove(&id) else {
            return;
        };
        let answer = match (client.is_refused(), client.surplus, client.has_begun()) {
            (false, true, _) => self.too_many(),
            (_, false, true) => (self.manner.refuse)(408, "The request was not whole in time."),
            _ => return,
        };
        client.dismiss(&answer, self.manner.name);
    }

    fn accept(&mut self) {
        for _ in 0..MOST_NEW {
            let Some(stream) = self.acceptor.accept(self.listener.as_fd()) else {
                return;
            };
            self.last = self.last.wrapping_add(1);
            let surplus = !self.has_room();
            if surplus {
                self.make_room_to_refuse();
            }
            let client = Connection::new(stream, surplus);
            self.connections.insert(self.last, client);
            // What it has sent already makes it one of those who are not silent.
            self.listen(self.last);
        }
    }

    /// Of those without a seat the first has had its time when there are too many.
    fn make_room_to_refuse(&mut self) {
        let surplus = self.connections.iter().filter(|(_, it)| it.surplus);
        let surplus: Vec<_> = surplus.map(|(id, _)| *id).collect();
        if surplus.len() >= MOST_REFUSED
            && let Some(first) = surplus.first()
        {
            self.close(*first);
        }
    }

    fn too_many(&self) -> Answer {
        let seats = self.manner.seats;
        let text = format!("Too many open connections: {seats} are served at a time. Try again.");
        (self.manner.refuse)(503, &text)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
