//! Those who are connected to a socket, and what they want.

use super::Answer;
use super::connection::{Connection, Heard};
use super::request::Request;
use kvmlet_sys::acceptor::{Acceptor, Peers};
use kvmlet_sys::wait::{self, Slot, Until};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Programs that are served at a time.
pub const MOST: usize = 10;
/// Programs beside them that are told so; others wait to be accepted.
const MOST_REFUSED: usize = 10;
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
    /// What the server calls itself.
    name: &'static str,
    /// How bad requests are told, beside their status.
    tell: fn(&str) -> String,
    longest_body: usize,
}

impl Server {
    /// One that nobody has been accepted at. The socket does not block.
    pub fn new(
        listener: OwnedFd,
        name: &'static str,
        tell: fn(&str) -> String,
        longest_body: usize,
    ) -> Self {
        Self {
            listener,
            // Whoever may write to the socket's file is meant to.
            acceptor: Acceptor::new(Peers::All),
            connections: BTreeMap::new(),
            last: 0,
            requests: VecDeque::new(),
            name,
            tell,
            longest_body,
        }
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let listener = match self.accepts() {
            true => self.acceptor.slot(self.listener.as_fd()),
            false => Slot::NOTHING,
        };
        let connections = self.connections.values();
        connections.map(Connection::slot).chain([listener])
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let connections = self.connections.values().filter_map(Connection::due);
        let resumes = self.acceptor.due().filter(|_| self.accepts());
        connections.chain(resumes).min()
    }

    /// Does what there is to do now.
    pub fn turn(&mut self) {
        let now = Instant::now();
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(client) = self.connections.get_mut(&id) else {
                continue;
            };
            let is_late = client.due().is_some_and(|due| due <= now);
            match client.send() && !is_late {
                true => self.listen(id),
                false => drop(self.connections.remove(&id)),
            }
        }
        self.accept();
    }

    /// Listens to a client, and answers what is no request.
    fn listen(&mut self, id: ClientId) {
        let Some(client) = self.connections.get_mut(&id) else {
            return;
        };
        let answer = match client.listen(self.longest_body) {
            Heard::Nothing => return,
            Heard::End => return drop(self.connections.remove(&id)),
            Heard::Request(_) if client.surplus => too_many(),
            Heard::Request(request) => return self.requests.push_back((id, request)),
            Heard::Bad(status, why) => Answer::new(status, Some((self.tell)(&why))),
        };
        client.answer(&answer, self.name);
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
        client.answer(answer, self.name);
        match client.send() {
            // What it has sent already is not told by the kernel again.
            true => self.listen(id),
            false => drop(self.connections.remove(&id)),
        }
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

    /// Whoever keeps a connection for later, and has done so longest, makes another one when it comes back: clients that pool
    /// connections would take all seats.
    fn close_idle(&mut self) {
        let idle = self.connections.iter();
        let idle = idle.filter_map(|(id, client)| Some((client.idle_since()?, *id)));
        if let Some((_, id)) = idle.min() {
            self.connections.remove(&id);
        }
    }

    fn served(&self) -> usize {
        let connections = self.connections.values();
        connections.filter(|client| !client.surplus).count()
    }

    fn accepts(&self) -> bool {
        self.connections.len() < MOST + MOST_REFUSED
    }

    fn accept(&mut self) {
        while self.accepts()
            && let Some(stream) = self.acceptor.accept(self.listener.as_fd())
        {
            self.last = self.last.wrapping_add(1);
            if self.served() >= MOST {
                self.close_idle();
            }
            let surplus = self.served() >= MOST;
            let client = Connection::new(stream, surplus);
            self.connections.insert(self.last, client);
        }
    }
}

fn too_many() -> Answer {
    let text = format!("Too many open connections: {MOST} are served at a time. Try again.");
    Answer::new(503, Some(serde_json::json!({ "error": text }).to_string()))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
