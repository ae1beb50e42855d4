//! TCP listeners whose connections are proxied, with a bound on how many there are.

use super::bounds::Rules;
use super::connection::{Connection, Progress, begin};
use super::guests::{Guests, Refusal};
use super::line::{Line, Waiting, is_reset, refuse};
use super::seats::{Taken, make_room};
use super::settling::Settling;
use super::source::Source;
use super::target::Target;
use super::{Context, Kind};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Connections that one listener accepts before others have their turn.
const TURN: usize = 16;
/// How long no connection is accepted after the host has refused one, for lack of descriptors mostly.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a seat is looked for on behalf of those who wait.
const LOOK: Duration = Duration::from_secs(1);
/// How long a connection may be silent whose client has closed its socket: no answer reaches it.
const ABANDONED: Duration = Duration::from_secs(30);

pub(super) struct TcpRelay {
    kind: Kind,
    rules: Rules,
    listeners: Vec<(TcpListener, Target)>,
    connections: HashMap<u64, Connection>,
    /// Those of clients who are gone, which take a seat as well.
    settling: HashMap<u64, Settling>,
    next: u64,
    /// Those for whom there is no seat now.
    line: Line,
    guests: Guests,
    /// Connections to guests that are starting, with the time to try once more.
    later: Vec<(Instant, u64)>,
    /// Those who had their turn and have more to do: listeners and connections.
    again: (Vec<usize>, Vec<u64>),
    /// Until when no connection is accepted, and whether that was said.
    paused: Option<Instant>,
    complained: bool,
    swept: Instant,
}

impl TcpRelay {
    /// `kinds` are those of events of listeners and of connections.
    pub fn new(
        context: &Context,
        kinds: (Kind, Kind),
        rules: Rules,
        listeners: Vec<(TcpListener, Target)>,
    ) -> io::Result<Self> {
        for (index, (listener, _)) in listeners.iter().enumerate() {
            context.watch(listener, kinds.0, index as u64)?;
        }
        Ok(Self {
            kind: kinds.1,
            listeners,
            connections: HashMap::new(),
            settling: HashMap::new(),
            next: 0,
            line: Line::new(rules.waiting),
            rules,
            guests: Guests::default(),
            later: Vec::new(),
            again: Default::default(),
            paused: None,
            complained: false,
            swept: context.now,
        })
    }

    /// Those of its listeners and connections.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(|(listener, _)| listener.as_fd());
        let connections = self.connections.values();
        listeners.chain(connections.flat_map(|one| [one.client().as_fd(), one.server().as_fd()]))
    }

    /// When [`go_on`](Self::go_on) has something to do.
    pub fn due(&self) -> Option<Instant> {
        if !self.again.1.is_empty() || self.paused.is_none() && !self.again.0.is_empty() {
            return Some(self.swept);
        }
        let sweep = (!self.connections.is_empty()).then(|| self.swept + self.between_sweeps());
        let later = self.later.iter().map(|(at, _)| *at).min();
        let settled = self.settling.values().map(|one| one.until).min();
        let dues = [sweep, self.paused, later, settled];
        dues.into_iter().flatten().min()
    }

    /// All that is to be done without an event.
    pub fn go_on(&mut self, context: &mut Context) {
        let sweep = context.now >= self.swept + self.between_sweeps();
        if sweep {
            self.swept = context.now;
            self.end_late(context);
        }
        self.settling.retain(|_, one| one.until > context.now);
        while self.has_free_seat()
            && let Some(next) = self.next_waiting()
        {
            self.begin(next, context);
        }
        if sweep {
            self.seat_waiting(context);
        }
        for number in std::mem::take(&mut self.again.1) {
            self.serve(number, context);
        }
        for (at, number) in std::mem::take(&mut self.later) {
            if at > context.now {
                self.later.push((at, number));
            } else if !self.retry(number, context) {
                self.end(number, context.now);
            }
        }
        if self.paused.is_none_or(|until| until <= context.now) {
            self.paused = None;
            for index in std::mem::take(&mut self.again.0) {
                self.accept(index, context);
            }
        }
    }

    fn between_sweeps(&self) -> Duration {
        match self.line.is_empty() {
            true => self.rules.connecting / 2,
            false => LOOK,
        }
    }

    /// Ends what has lasted too long.
    fn end_late(&mut self, context: &mut Context) {
        let rules = &self.rules;
        let late = |connection: &Connection| {
            let silent = context.now.saturating_duration_since(connection.heard);
            let patience = rules.patience(connection);
            patience.is_some_and(|most| silent >= most)
                || silent >= ABANDONED && connection.is_abandoned(&context.users)
        };
        let connections = self.connections.iter();
        let late = connections.filter(|(_, connection)| late(connection));
        let late: Vec<(u64, bool)> = late.map(|(n, c)| (*n, c.is_connected())).collect();
        for (number, connected) in late {
            if connected || !self.retry(number, context) {
                self.end(number, context.now);
            }
        }
    }

    /// Has clients accepted, after those that are there have been served: some may be about to leave.
    pub fn accept_later(&mut self, index: usize) {
        if !self.again.0.contains(&index) {
            self.again.0.push(index);
        }
    }

    fn accept(&mut self, index: usize, context: &mut Context) {
        for _ in 0..TURN {
            let accepted = self.listeners[index].0.accept();
            match accepted.and_then(|(client, peer)| self.admit(index, client, peer, context)) {
                Ok(()) => self.complained = false,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => {
                        if !std::mem::replace(&mut self.complained, true) {
                            log::warn!("connections are not accepted now: {error}");
                        }
                        self.paused = Some(context.now + PAUSE);
                        break;
                    }
                },
            }
        }
        self.accept_later(index);
    }

    /// Gives a client a seat, or has it wait for one.
    fn admit(
        &mut self,
        index: usize,
        client: TcpStream,
        peer: SocketAddr,
        context: &mut Context,
    ) -> io::Result<()> {
        if is_reset(&client) {
            return Ok(());
        }
        client.set_nonblocking(true)?;
        let here = client.local_addr()?;
        let target = self.listeners[index].1;
        if let Target::NameServers { of } = target
            && peer.ip() != of
        {
            refuse(&client);
            return Ok(());
        }
        let newcomer = Waiting {
            client,
            target,
            source: context.users.source(libc::IPPROTO_TCP, peer, here),
            since: context.now,
        };
        if self.free_seat(newcomer.source, context.now) {
            self.begin(newcomer, context);
            return Ok(());
        }
        self.line.enter(newcomer, context.now);
        Ok(())
    }

    fn has_free_seat(&self) -> bool {
        self.connections.len() + self.settling.len() < self.rules.most
    }

    /// Is there a seat, or somebody who makes room at once? Some do so soon.
    fn free_seat(&mut self, newcomer: Source, now: Instant) -> bool {
        if self.has_free_seat() {
            return true;
        }
        let connections = self.connections.iter();
        let settling = self.settling.iter();
        let taken = connections.map(|(key, one)| (*key, one.source, one.heard));
        let taken = taken.chain(settling.map(|(key, one)| (*key, one.source, one.until)));
        let taken = taken.map(|(key, source, silent_since)| Taken {
            key,
            source,
            silent_since,
        });
        if let Some(number) = make_room(taken, newcomer, now) {
            self.end(number, now);
        }
        self.has_free_seat()
    }

    /// Whoever is to have a seat that is free.
    fn next_waiting(&mut self) -> Option<Waiting> {
        let connections = self.connections.values().map(|one| one.source);
        let seats = connections.chain(self.settling.values().map(|one| one.source));
        self.line.next(seats)
    }

    /// Gives seats to those who wait, in place of those who were silent in the meantime.
    fn seat_waiting(&mut self, context: &mut Context) {
        for waiting in self.line.take() {
            if self.free_seat(waiting.source, context.now) {
                self.begin(waiting, context);
            } else {
                self.line.stay(waiting, context.now);
            }
        }
    }

    /// Begins to connect a client to where it wants to. One that cannot be is told so.
    fn begin(&mut self, waiting: Waiting, context: &mut Context) {
        let client = waiting.client;
        let mut servers = VecDeque::from(match waiting.target {
            Target::Guest(address) => vec![address],
            Target::NameServers { .. } => match &mut context.servers {
                Some(servers) => servers.in_order(context.now),
                None => Vec::new(),
            },
        });
        let Ok(server) = begin(&mut servers) else {
            return refuse(&client);
        };
        let connection = Connection::new(client, server, servers, waiting.source, context.now);
        let watched = connection.and_then(|mut connection| {
            if let Target::Guest(address) = waiting.target {
                connection.guest = Some(address);
            }
            context.watch(connection.client(), self.kind, self.next)?;
            context.watch(connection.server(), self.kind, self.next)?;
            Ok(connection)
        });
        match watched {
            Ok(connection) => drop(self.connections.insert(self.next, connection)),
            Err(error) => log::debug!("a connection is not served: {error}"),
        }
        self.next += 1;
    }

    pub fn serve(&mut self, number: u64, context: &mut Context) {
        if self.settling.get(&number).is_some_and(Settling::is_over) {
            self.settling.remove(&number);
        }
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let was_connected = connection.is_connected();
        let progress = connection.serve(&mut context.buffer, context.now);
        if let Some(guest) = connection.guest
            && connection.is_connected()
            && !was_connected
        {
            self.guests.has_served(guest);
        }
        match progress {
            Progress::More => {
                if !self.again.1.contains(&number) {
                    self.again.1.push(number);
                }
            }
            Progress::Blocked => {}
            // Closing the sockets takes them out of epoll.
            Progress::Done => drop(self.connections.remove(&number)),
            Progress::Unreachable { refused }
                if self.retry(number, context) || self.retry_later(number, refused, context) => {}
            Progress::Unreachable { .. } | Progress::Failed => self.end(number, context.now),
        }
    }

    /// Has a connection try its guest again soon, if that is starting: a port is there before who serves it. Or if it is
    /// full, as one is that refuses and serves others.
    fn retry_later(&mut self, number: u64, refused: bool, context: &Context) -> bool {
        let guest = self.connections.get(&number).and_then(|one| one.guest);
        let serves_others = refused && guest.is_some_and(|guest| self.serves_others(number, guest));
        let Some(connection) = self.connections.get_mut(&number) else {
            return false;
        };
        let refusal = Refusal {
            refused,
            serves_others,
            patience: self.rules.connecting,
        };
        let again = self.guests.ask_again(connection, refusal, context.now);
        self.later.extend(again.map(|at| (at, number)));
        again.is_some()
    }

    /// Has a guest's address connections of others, or may it have some?
    fn serves_others(&self, number: u64, guest: SocketAddr) -> bool {
        let mut connections = self.connections.iter();
        connections
            .any(|(other, one)| *other != number && one.guest == Some(guest) && one.has_server())
            || self.settling.values().any(|one| one.guest == Some(guest))
    }

    /// Has a connection try the next of its servers, if there is one.
    fn retry(&mut self, number: u64, context: &Context) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else {
            return false;
        };
        connection.try_next(context.now).is_ok()
            && context
                .watch(connection.server(), self.kind, number)
                .is_ok()
    }

    fn end(&mut self, number: u64, now: Instant) {
        if let Some(connection) = self.connections.remove(&number)
            && let Some(settling) = connection.abort(now)
        {
            self.settling.insert(number, settling);
        }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
