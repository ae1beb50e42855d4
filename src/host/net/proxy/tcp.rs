//! TCP listeners whose connections are proxied, with a bound on how many there are.

use super::bounds::Rules;
use super::connection::{Connection, Progress, begin};
use super::seats::{Taken, make_room};
use super::source::Source;
use super::{Context, Kind};
use rustix::net::sockopt;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Connections that one listener accepts before others have their turn.
const TURN: usize = 16;
/// How long no connection is accepted after the host has refused one, for lack of descriptors mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a seat is looked for on behalf of those who wait.
const LOOK: Duration = Duration::from_secs(1);
/// How long a guest that has not served a port yet may refuse its clients before they are told: the service starts.
const STARTING: Duration = Duration::from_secs(20);
/// When such a guest is asked once more.
const ONCE_MORE: Duration = Duration::from_millis(50);
/// How long a connection may be silent whose client has closed its socket: no answer reaches it.
const ABANDONED: Duration = Duration::from_secs(30);
/// How long a client waits for a seat.
const WAIT: Duration = Duration::from_secs(15);

/// Where a listener's connections lead.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Guest(SocketAddr),
    /// To the host's name servers, for one guest only.
    NameServers {
        of: Ipv4Addr,
    },
}

/// A client that was accepted when all seats were taken.
struct Waiting {
    client: TcpStream,
    target: Target,
    source: Source,
    since: Instant,
}

/// A guest's address after the first answer from it.
enum Guest {
    /// It refused, from that time on.
    Refuses { since: Instant },
    /// It has served a client.
    Serves,
}

pub(super) struct TcpRelay {
    kind: Kind,
    rules: Rules,
    listeners: Vec<(TcpListener, Target)>,
    connections: HashMap<u64, Connection>,
    next: u64,
    /// Those for whom there is no seat now.
    waiting: VecDeque<Waiting>,
    /// What guests' addresses have done so far.
    guests: HashMap<SocketAddr, Guest>,
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
            rules,
            listeners,
            connections: HashMap::new(),
            next: 0,
            waiting: VecDeque::new(),
            guests: HashMap::new(),
            later: Vec::new(),
            again: Default::default(),
            paused: None,
            complained: false,
            swept: context.now,
        })
    }

    /// When [`go_on`](Self::go_on) has something to do.
    pub fn due(&self) -> Option<Instant> {
        if !self.again.1.is_empty() || self.paused.is_none() && !self.again.0.is_empty() {
            return Some(self.swept);
        }
        let sweep = (!self.connections.is_empty()).then(|| self.swept + self.between_sweeps());
        let later = self.later.iter().map(|(at, _)| *at).min();
        [sweep, self.paused, later].into_iter().flatten().min()
    }

    /// All that is to be done without an event.
    pub fn go_on(&mut self, context: &mut Context) {
        let sweep = context.now >= self.swept + self.between_sweeps();
        if sweep {
            self.swept = context.now;
            self.end_late(context);
        }
        while self.connections.len() < self.rules.most
            && let Some(next) = self.waiting.pop_front()
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
                self.end(number);
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
        match self.waiting.is_empty() {
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
                self.end(number);
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
        if self.waiting.len() >= self.rules.waiting {
            let waiting = self.waiting.iter().enumerate();
            let taken = waiting.map(|(key, waiting)| Taken {
                key,
                source: waiting.source,
                silent_since: waiting.since,
            });
            match make_room(taken, newcomer.source, context.now) {
                Some(key) => {
                    if let Some(waiting) = self.waiting.remove(key) {
                        refuse(&waiting.client);
                    }
                }
                None => {
                    refuse(&newcomer.client);
                    return Ok(());
                }
            }
        }
        self.waiting.push_back(newcomer);
        Ok(())
    }

    /// Is there a seat, or somebody who makes room?
    fn free_seat(&mut self, newcomer: Source, now: Instant) -> bool {
        if self.connections.len() < self.rules.most {
            return true;
        }
        let taken = self.connections.iter().map(|(number, connection)| Taken {
            key: *number,
            source: connection.source,
            silent_since: connection.heard,
        });
        let room = make_room(taken, newcomer, now);
        room.inspect(|number| self.end(*number)).is_some()
    }

    /// Gives seats to those who wait, in place of those who were silent in the meantime.
    fn seat_waiting(&mut self, context: &mut Context) {
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            if self.free_seat(waiting.source, context.now) {
                self.begin(waiting, context);
            } else if context.now.saturating_duration_since(waiting.since) >= WAIT {
                refuse(&waiting.client);
            } else {
                self.waiting.push_back(waiting);
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
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let was_connected = connection.is_connected();
        let progress = connection.serve(&mut context.buffer, context.now);
        if let Some(guest) = connection.guest
            && connection.is_connected()
            && !was_connected
        {
            self.guests.insert(guest, Guest::Serves);
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
            Progress::Unreachable { .. } | Progress::Failed => self.end(number),
        }
    }

    /// Has a connection try its guest again soon, if that is starting: a port is there before who serves it.
    fn retry_later(&mut self, number: u64, refused: bool, context: &Context) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else {
            return false;
        };
        let Some(guest) = connection.guest else {
            return false;
        };
        let now = context.now;
        if refused {
            let first = Guest::Refuses { since: now };
            self.guests.entry(guest).or_insert(first);
        }
        let starts = match self.guests.get(&guest) {
            Some(Guest::Serves) => false,
            Some(Guest::Refuses { since }) => now.saturating_duration_since(*since) < STARTING,
            None => now.saturating_duration_since(connection.heard) < self.rules.connecting,
        };
        if starts {
            connection.try_again(guest);
            self.later.push((now + ONCE_MORE, number));
        }
        starts
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

    fn end(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            connection.abort();
        }
    }
}

/// Lets a client see that nobody serves it, once it is dropped.
fn refuse(client: &TcpStream) {
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
