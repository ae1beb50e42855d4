//! A VM's control socket: programs connect to it, ask for what a VM can be asked, and are told what it is doing.
//!
//! The supervisor serves it in its loop. What programs can make it hold or do is bounded: there are a few of them at a time,
//! each with one request and one answer. A few more are told that there are too many; others wait to be accepted.

mod client;
mod exposition;
mod http;
mod metrics;
mod statistics;

use client::{Client, Heard};
use kvmlet_control::{Order, Report, Request, State};
use kvmlet_spec::Failure;
use kvmlet_sys::acceptor::{Acceptor, Peers};
use kvmlet_sys::wait::Slot;
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Programs that are served.
const MOST: usize = 8;
/// Programs beside them that are told so; others wait until one of those has been silent for too long.
const MOST_REFUSED: usize = 8;
/// Of those as many may stay for ever.
const MOST_WATCHERS: usize = MOST / 2;
/// How long a client may take to send a request, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one that is silent keeps its place while others want it: whoever connects has something to ask, and asks it.
const GRACE: Duration = Duration::from_millis(50);

/// A socket that listens, as whoever starts a supervisor has made it.
#[derive(Debug)]
pub struct ControlListener(OwnedFd);

impl ControlListener {
    /// Looks whether it is one.
    ///
    /// # Errors
    /// When it is no Unix stream socket that listens.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let kind = (socket_domain(&socket)?, socket_type(&socket)?);
        if kind != (AddressFamily::UNIX, SocketType::STREAM) || !socket_acceptconn(&socket)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no Unix stream socket that listens",
            ));
        }
        // Somebody else may accept what was seen to wait here.
        ioctl_fionbio(&socket, true)?;
        Ok(Self(socket))
    }
}

/// What a client is known by, as long as it is there.
pub type ClientId = u32;

/// A control socket with those who are connected, without the VM.
#[derive(Debug)]
pub struct ControlSocket {
    listener: OwnedFd,
    clients: BTreeMap<ClientId, Client>,
    last: ClientId,
    patience: Duration,
    grace: Duration,
    acceptor: Acceptor,
    /// Statistics as the VM has told them last: not looked at.
    told: Vec<u8>,
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who wants it.
    pub client: ClientId,
    /// What it is.
    pub request: Request,
    /// Its answer is to be text for a scraper.
    pub is_scrape: bool,
}

impl ControlSocket {
    /// One that nobody has been accepted at.
    pub fn new(listener: ControlListener) -> Self {
        Self {
            listener: listener.0,
            clients: BTreeMap::new(),
            last: 0,
            patience: PATIENCE,
            grace: GRACE,
            acceptor: Acceptor::new(Peers::OwnUser),
            told: Vec::new(),
        }
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let listener = match self.has_room(Instant::now()) {
            true => self.acceptor.slot(self.listener.as_fd()),
            false => Slot::NOTHING,
        };
        self.clients.values().map(Client::slot).chain([listener])
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let clients = self.clients.values();
        let clients = clients.filter_map(|client| client.due(self.patience));
        let room = match self.has_room(Instant::now()) {
            true => self.acceptor.due(),
            false => self.silent().map(|(from, _)| from).min(),
        };
        clients.chain(room).min()
    }

    /// Does what there is to do now, and returns what clients want: of each one request at the most.
    pub fn turn(&mut self, state: State) -> Vec<Wanted> {
        let now = Instant::now();
        let mut wanted = Vec::new();
        let mut served = self.served();
        self.clients.retain(|id, client| {
            if !client.send() || client.due(self.patience).is_some_and(|due| due <= now) {
                return false;
            }
            let (request, is_scrape) = match client.listen() {
                Heard::End => return false,
                Heard::Nothing => {
                    client.tell(state);
                    return client.send();
                }
                Heard::Request(request) => (request, false),
                Heard::Scrape => (SCRAPE, true),
            };
            if !client.watches() && served >= MOST {
                client.refuse(&request, is_scrape, too_many());
                return client.send();
            }
            served += usize::from(!client.watches());
            let client = *id;
            wanted.push(Wanted {
                client,
                request,
                is_scrape,
            });
            true
        });
        self.accept();
        wanted
    }

    /// What a VM has told of itself, for who asks.
    pub fn keep_stats(&mut self, told: &[u8]) {
        if !self.clients.is_empty() {
            self.told = told.to_vec();
        }
    }

    /// Answers a client. With statistics it is what was told last, and what this process finds out itself.
    pub fn answer(&mut self, wanted: &Wanted, refused: Option<Failure>, vm: Pid, state: State) {
        let Some(client) = self.clients.get_mut(&wanted.client) else {
            return;
        };
        let is_asked = wanted.request.order == Order::Stats && refused.is_none();
        let stats = is_asked.then(|| statistics::of(&self.told, vm)).flatten();
        let refused = match refused {
            None if is_asked && stats.is_none() => Some(failure("the VM has told no statistics")),
            refused => refused,
        };
        if wanted.is_scrape {
            let text = match (&stats, refused) {
                (Some(stats), _) => http::metrics(&metrics::of(stats, state)),
                (None, refused) => http::unavailable(&refused.unwrap_or_default().message),
            };
            client.answer_text(text);
        } else {
            let json = stats.map(|stats| serde_json::to_vec(&stats).unwrap_or_default());
            let to = wanted.request.number;
            let answer = Report::Answer { to, refused };
            let reports: Vec<_> = json
                .map(Report::Stats)
                .into_iter()
                .chain([answer])
                .collect();
            client.answer(&reports);
        }
        let is_over = !client.send();
        client.tell(state);
        // Who scrapes is closed: it reads up to that.
        if is_over || !client.send() {
            self.clients.remove(&wanted.client);
        }
    }

    /// Tells a client something before it is answered.
    pub fn tell(&mut self, wanted: &Wanted, report: &Report) {
        if let Some(client) = self.clients.get_mut(&wanted.client) {
            client.put_report(report);
        }
    }

    /// The same, with a descriptor.
    pub fn tell_with(&mut self, wanted: &Wanted, report: &Report, descriptor: OwnedFd) {
        if let Some(client) = self.clients.get_mut(&wanted.client) {
            client.put_report_with(report, descriptor);
            // It is to be read before the request is answered. What has no room yet waits for its turn.
            client.send();
        }
    }

    /// Tells a client from now on what the VM is doing. False if too many are told already.
    pub fn watch(&mut self, wanted: &Wanted) -> bool {
        let watchers = self
            .clients
            .values()
            .filter(|client| client.watches())
            .count();
        let Some(client) = self.clients.get_mut(&wanted.client) else {
            return true;
        };
        if !client.watches() && watchers >= MOST_WATCHERS {
            return false;
        }
        client.watch();
        true
    }

    /// Tells all who want to know what the VM is doing from now on.
    pub fn tell_state(&mut self, state: State) {
        for client in self.clients.values_mut() {
            client.tell(state);
            client.send();
        }
    }

    /// Tells the end to all, which nobody waits for.
    pub fn tell_end(&mut self, end: &Report) {
        for client in self.clients.values_mut() {
            client.tell_end(end);
        }
    }

    /// Those who wait for an answer, or watch. Who is silent takes nobody's place.
    fn served(&self) -> usize {
        let clients = self.clients.values();
        clients.filter(|client| client.is_served()).count()
    }

    fn is_full(&self) -> bool {
        self.clients.len() >= MOST + MOST_REFUSED
    }

    /// Those who ask for nothing, and from when on they make room for others.
    fn silent(&self) -> impl Iterator<Item = (Instant, ClientId)> {
        let clients = self.clients.iter();
        clients.filter_map(|(id, client)| Some((client.yields_from(self.grace)?, *id)))
    }

    /// Can one more be accepted, if somebody makes room for it?
    fn has_room(&self, now: Instant) -> bool {
        !self.is_full() || self.silent().any(|(from, _)| from <= now)
    }

    fn accept(&mut self) {
        let now = Instant::now();
        while self.has_room(now)
            && let Some(stream) = self.acceptor.accept(self.listener.as_fd())
        {
            if self.is_full()
                && let Some((_, id)) = self.silent().min()
            {
                self.clients.remove(&id);
            }
            self.last = self.last.wrapping_add(1);
            self.clients.insert(self.last, Client::new(stream));
        }
    }
}

/// What a scraper asks, in other words.
const SCRAPE: Request = Request {
    number: 0,
    order: Order::Stats,
};

fn too_many() -> Failure {
    let mut failure = failure(&format!(
        "as many programs as the VM serves at a time ({MOST}) are connected to it already"
    ));
    failure.help = Some("try again".into());
    failure
}

/// Why something is not done.
pub(crate) fn failure(message: &str) -> Failure {
    let mut failure = Failure::default();
    failure.message = message.into();
    failure
}

#[cfg(test)]
mod tests;
