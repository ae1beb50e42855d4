//! Published UDP ports. Each client gets a socket towards the guest, so that answers find their way.

use super::seats::{Taken, make_room};
use super::source::Source;
use super::{Context, Kind, datagram};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A client of which nothing is heard for this long is forgotten.
const SILENCE: Duration = Duration::from_secs(60);
/// Datagrams of one socket before others have their turn.
const TURN: usize = 64;

struct Client {
    peer: SocketAddr,
    /// The socket that it has sent to, and the host's address there.
    at: usize,
    here: Option<IpAddr>,
    source: Source,
    guest: UdpSocket,
    /// When anything was last heard of it or for it.
    heard: Instant,
}

pub(super) struct UdpRelay {
    /// The most clients at a time.
    most: usize,
    sockets: Vec<(UdpSocket, SocketAddr)>,
    clients: HashMap<u64, Client>,
    next: u64,
    /// Those who had their turn and may have more to do: sockets and clients.
    again: (Vec<usize>, Vec<u64>),
    swept: Instant,
}

impl UdpRelay {
    /// Serves the sockets, each of which leads to an address.
    pub fn new(
        context: &Context,
        most: usize,
        sockets: Vec<(UdpSocket, SocketAddr)>,
    ) -> io::Result<Self> {
        for (index, (socket, _)) in sockets.iter().enumerate() {
            datagram::tell_destination(socket)?;
            context.watch(socket, Kind::UdpSocket, index as u64)?;
        }
        Ok(Self {
            most,
            sockets,
            clients: HashMap::new(),
            next: 0,
            again: Default::default(),
            swept: context.now,
        })
    }

    /// Those of its sockets.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.values().map(|client| client.guest.as_fd());
        self.sockets
            .iter()
            .map(|(socket, _)| socket.as_fd())
            .chain(clients)
    }

    /// When [`go_on`](Self::go_on) has something to do.
    pub fn due(&self) -> Option<Instant> {
        if !self.again.0.is_empty() || !self.again.1.is_empty() {
            return Some(self.swept);
        }
        (!self.clients.is_empty()).then(|| self.swept + SILENCE)
    }

    /// All that is to be done without an event.
    pub fn go_on(&mut self, context: &mut Context) {
        // Answers first: what comes in may replace clients.
        for number in std::mem::take(&mut self.again.1) {
            self.answer(number, context);
        }
        for index in std::mem::take(&mut self.again.0) {
            self.forward(index, context);
        }
        if context.now >= self.swept + SILENCE {
            self.swept = context.now;
            self.clients
                .retain(|_, client| context.now - client.heard < SILENCE);
        }
    }

    pub fn forward(&mut self, index: usize, context: &mut Context) {
        let mut buffer = std::mem::take(&mut context.buffer);
        for _ in 0..TURN {
            let received = datagram::receive(&self.sockets[index].0, &mut buffer);
            let (bytes, peer, here) = match received {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    context.buffer = buffer;
                    return;
                }
                // An answer that did not arrive.
                Err(_) => continue,
            };
            match self.client(index, peer, here, context) {
                // As everywhere with UDP, what is not taken is lost.
                Ok(client) => drop(client.guest.send(&buffer[..bytes])),
                Err(error) => log::debug!("a datagram of {peer} is not passed on: {error}"),
            }
        }
        context.buffer = buffer;
        if !self.again.0.contains(&index) {
            self.again.0.push(index);
        }
    }

    fn client(
        &mut self,
        at: usize,
        peer: SocketAddr,
        here: Option<IpAddr>,
        context: &Context,
    ) -> io::Result<&Client> {
        let known = |client: &Client| (client.peer, client.at, client.here) == (peer, at, here);
        let known = self.clients.iter().find(|(_, client)| known(client));
        let number = match known {
            Some((number, _)) => *number,
            None => self.welcome(at, peer, here, context)?,
        };
        let client = self.clients.get_mut(&number);
        let client = client.ok_or(io::ErrorKind::NotFound)?;
        client.heard = context.now;
        Ok(client)
    }

    fn welcome(
        &mut self,
        at: usize,
        peer: SocketAddr,
        here: Option<IpAddr>,
        context: &Context,
    ) -> io::Result<u64> {
        let local = self.sockets[at].0.local_addr()?;
        let local = SocketAddr::new(here.unwrap_or(local.ip()), local.port());
        let source = context.users.source(libc::IPPROTO_UDP, peer, local);
        if self.clients.len() >= self.most {
            let taken = self.clients.iter().map(|(number, client)| Taken {
                key: *number,
                source: client.source,
                silent_since: client.heard,
            });
            let room = make_room(taken, source, context.now).ok_or(io::ErrorKind::ResourceBusy)?;
            self.clients.remove(&room);
        }
        let guest = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        guest.set_nonblocking(true)?;
        guest.connect(self.sockets[at].1)?;
        let number = self.next;
        self.next += 1;
        context.watch(&guest, Kind::UdpClient, number)?;
        self.clients.insert(
            number,
            Client {
                peer,
                at,
                here,
                source,
                guest,
                heard: context.now,
            },
        );
        Ok(number)
    }

    pub fn answer(&mut self, number: u64, context: &mut Context) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        for _ in 0..TURN {
            match client.guest.recv(&mut context.buffer) {
                Ok(bytes) => {
                    client.heard = context.now;
                    let socket = &self.sockets[client.at].0;
                    let answer = &context.buffer[..bytes];
                    let _ = datagram::send(socket, answer, client.peer, client.here);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That nobody listens, for one, which reading makes forgotten.
                Err(_) => {}
            }
        }
        if !self.again.1.contains(&number) {
            self.again.1.push(number);
        }
    }
}
