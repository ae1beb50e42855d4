//! Passes the guest's questions about names on to the host's name servers, and their answers back.
//!
//! Nothing is parsed but the header's first four bytes (RFC 1035, 4.1.1), nothing kept: whether an answer is one to
//! its question is for the guest to see, whose resolver has to look anyway. What keeps strangers from answering is
//! here: each question goes out with an id and from a port of its own, both random, and only the server that was
//! asked is listened to.

use super::{Context, Kind};
use rustix::rand::{GetRandomFlags, getrandom};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The longest question, in bytes. They have a hundred, mostly; longer ones can use TCP.
const LONGEST: usize = 2048;
/// How long a server may take before the next one is asked.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How many times servers are asked. The guest asks again after 5 s (resolv.conf(5), `timeout`).
const ATTEMPTS: usize = 3;
/// Datagrams of one socket before others have their turn.
const TURN: usize = 64;

/// A DNS header's size, and what is in its third and fourth bytes.
const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
const CODE: u8 = 0x0f;
const SERVER_FAILURE: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// One question under way.
struct Query {
    client: SocketAddr,
    /// The id that the guest gave it.
    id: [u8; 2],
    /// As it is sent, with an id of ours.
    text: Vec<u8>,
    servers: Vec<SocketAddr>,
    /// How often servers were asked, and which was the last.
    attempts: usize,
    asked: Option<(SocketAddr, UdpSocket)>,
    due: Instant,
}

pub(super) struct Forwarder {
    /// The most questions at a time.
    most: usize,
    socket: UdpSocket,
    guest: Ipv4Addr,
    /// By number, so the oldest is the first.
    queries: BTreeMap<u64, Query>,
    next: u64,
    /// It had its turn, and may have more questions.
    again: bool,
}

impl Forwarder {
    /// Answers the questions that one guest sends to a socket.
    pub fn new(
        context: &Context,
        most: usize,
        socket: UdpSocket,
        guest: Ipv4Addr,
    ) -> io::Result<Self> {
        context.watch(&socket, Kind::DnsSocket, 0)?;
        Ok(Self {
            most,
            socket,
            guest,
            queries: BTreeMap::new(),
            next: 0,
            again: false,
        })
    }

    /// When [`go_on`](Self::go_on) has something to do.
    pub fn due(&self) -> Option<Instant> {
        let queries = self.queries.values().map(|query| query.due).min();
        match self.again {
            true => Some(Instant::now()),
            false => queries,
        }
    }

    /// All that is to be done without an event.
    pub fn go_on(&mut self, context: &mut Context) {
        if std::mem::take(&mut self.again) {
            self.ask(context);
        }
        let late = self.queries.iter();
        let late = late.filter(|(_, query)| query.due <= context.now);
        for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.try_next(number, context);
        }
    }

    /// Where it is asked.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes questions of the guest.
    pub fn ask(&mut self, context: &mut Context) {
        let mut buffer = std::mem::take(&mut context.buffer);
        self.again = true;
        for _ in 0..TURN {
            match self.socket.recv_from(&mut buffer) {
                Ok((bytes, client)) => self.take(client, &buffer[..bytes], context),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.again = false;
                    break;
                }
                // An answer that did not arrive.
                Err(_) => {}
            }
        }
        context.buffer = buffer;
    }

    fn take(&mut self, client: SocketAddr, text: &[u8], context: &mut Context) {
        let is_question = (HEADER..=LONGEST).contains(&text.len()) && text[2] & RESPONSE == 0;
        if client.ip() != self.guest || !is_question {
            return;
        }
        let id = [text[0], text[1]];
        let mut queries = self.queries.values();
        if queries.any(|query| (query.client, query.id) == (client, id)) {
            // Asked again because the answer takes its time; so does the one to this.
            return;
        }
        let servers = context.servers.as_mut();
        let servers = servers.map_or(Vec::new(), |servers| servers.in_order(context.now));
        if servers.is_empty() {
            return self.fail(client, id, text);
        }
        if self.queries.len() >= self.most {
            // A guest that asks this much hurts itself only. The oldest has waited in vain for the longest.
            self.queries.pop_first();
        }
        let number = self.next;
        self.next += 1;
        let query = Query {
            client,
            id,
            text: text.to_vec(),
            servers,
            attempts: 0,
            asked: None,
            due: context.now,
        };
        self.queries.insert(number, query);
        self.try_next(number, context);
    }

    /// Asks the next server, or tells the guest that none answers.
    fn try_next(&mut self, number: u64, context: &mut Context) {
        let Some(query) = self.queries.get_mut(&number) else {
            return;
        };
        while query.attempts < ATTEMPTS.max(query.servers.len()) {
            let server = query.servers[query.attempts % query.servers.len()];
            query.attempts += 1;
            query.due = context.now + PATIENCE;
            // The only server may be about to answer: it gets the same question again.
            if let Some((last, socket)) = &query.asked
                && *last == server
                && socket.send(&query.text).is_ok()
            {
                return;
            }
            match send(server, &mut query.text, number, context) {
                Ok(socket) => {
                    query.asked = Some((server, socket));
                    return;
                }
                Err(error) => log::debug!("the name server {server} cannot be asked: {error}"),
            }
        }
        if let Some(query) = self.queries.remove(&number) {
            self.fail(query.client, query.id, &query.text);
        }
    }

    /// Takes what a server has sent.
    pub fn answer(&mut self, number: u64, context: &mut Context) {
        let Some(query) = self.queries.get(&number) else {
            return;
        };
        let Some((server, socket)) = &query.asked else {
            return;
        };
        for _ in 0..TURN {
            let text = match socket.recv(&mut context.buffer) {
                Ok(bytes) => &mut context.buffer[..bytes],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Nobody is there.
                Err(_) => return self.try_next(number, context),
            };
            let ours = text.len() >= HEADER && text[..2] == query.text[..2];
            if !ours || text[2] & RESPONSE == 0 {
                continue;
            }
            let unable = [SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED].contains(&(text[3] & CODE));
            if unable && query.attempts < query.servers.len() {
                return self.try_next(number, context);
            }
            text[..2].copy_from_slice(&query.id);
            let _ = self.socket.send_to(text, query.client);
            if let Some(servers) = &mut context.servers
                && !unable
            {
                servers.has_answered(*server, context.now);
            }
            self.queries.remove(&number);
            return;
        }
    }

    /// Answers that the servers have failed: the question, with that in its header.
    fn fail(&self, client: SocketAddr, id: [u8; 2], question: &[u8]) {
        let mut text = question.to_vec();
        text[..2].copy_from_slice(&id);
        text[2] |= RESPONSE;
        text[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
        let _ = self.socket.send_to(&text, client);
    }
}

/// Sends a question with a new id from a new port. An error that comes later is read from the socket.
fn send(
    server: SocketAddr,
    text: &mut [u8],
    number: u64,
    context: &Context,
) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut random = [0; 4];
    getrandom(&mut random, GetRandomFlags::empty())?;
    text[..2].copy_from_slice(&random[..2]);
    // The kernel chooses a random port of those that are free.
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    context.watch(&socket, Kind::DnsQuery, number)?;
    socket.send(text)?;
    Ok(socket)
}
