//! Clients that were accepted when all seats were taken, and wait for one.

use super::seats::{Taken, make_room, next_in_line};
use super::source::Source;
use super::target::Target;
use rustix::net::sockopt;
use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a client waits for a seat.
const WAIT: Duration = Duration::from_secs(15);

/// A client that was accepted.
pub(super) struct Waiting {
    pub client: TcpStream,
    pub target: Target,
    pub source: Source,
    pub since: Instant,
}

pub(super) struct Line {
    most: usize,
    waiting: VecDeque<Waiting>,
}

impl Line {
    pub fn new(most: usize) -> Self {
        let waiting = VecDeque::new();
        Self { most, waiting }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Has a client wait, in place of another maybe, or refuses it.
    pub fn enter(&mut self, newcomer: Waiting, now: Instant) {
        if self.waiting.len() >= self.most {
            self.waiting.retain(|one| !is_reset(&one.client));
        }
        if self.waiting.len() >= self.most {
            let waiting = self.waiting.iter().enumerate();
            let taken = waiting.map(|(key, waiting)| Taken {
                key,
                source: waiting.source,
                silent_since: waiting.since,
            });
            let Some(key) = make_room(taken, newcomer.source, now) else {
                return refuse(&newcomer.client);
            };
            if let Some(waiting) = self.waiting.remove(key) {
                refuse(&waiting.client);
            }
        }
        self.waiting.push_back(newcomer);
    }

    /// Whoever is to have a seat that is free, while these have the others.
    pub fn next(&mut self, seats: impl Iterator<Item = Source> + Clone) -> Option<Waiting> {
        loop {
            let sources = self.waiting.iter().map(|one| one.source);
            let next = self.waiting.remove(next_in_line(seats.clone(), sources)?)?;
            if !is_reset(&next.client) {
                return Some(next);
            }
        }
    }

    /// All that wait; each of them gets a seat now or [stays](Self::stay).
    pub fn take(&mut self) -> VecDeque<Waiting> {
        self.waiting.retain(|one| !is_reset(&one.client));
        std::mem::take(&mut self.waiting)
    }

    /// Has a client wait on, if it has not for long.
    pub fn stay(&mut self, waiting: Waiting, now: Instant) {
        match now.saturating_duration_since(waiting.since) >= WAIT {
            true => refuse(&waiting.client),
            false => self.waiting.push_back(waiting),
        }
    }
}

/// Has a client reset its connection? It wants nothing any more.
pub(super) fn is_reset(client: &TcpStream) -> bool {
    client.peer_addr().is_err()
}

/// Lets a client see that nobody serves it, once it is dropped.
pub(super) fn refuse(client: &TcpStream) {
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}
