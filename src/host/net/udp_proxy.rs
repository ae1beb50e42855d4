//! Published UDP ports for clients that no DNAT rule serves: those on the host itself.
//!
//! Each client gets a socket towards the guest, so that answers find their way; one that has been silent the
//! longest makes room for a new one.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// The most clients at a time.
const MOST: usize = 128;
/// A client that is silent for so long is forgotten.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest datagram, in bytes.
const DATAGRAM: usize = 64 << 10;
/// Datagrams of one socket before others have their turn.
const TURN: usize = 64;

/// The running proxy; dropping it ends it.
pub(super) struct UdpProxy {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl UdpProxy {
    /// Serves the sockets, each of which leads to an address.
    pub fn start(sockets: Vec<(UdpSocket, SocketAddrV4)>) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        for (socket, _) in &sockets {
            socket.set_nonblocking(true)?;
        }
        let serving = Serving {
            stopped,
            sockets,
            clients: Vec::new(),
        };
        let thread = Builder::new()
            .name("udp-proxy".into())
            .spawn(move || serving.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Client {
    address: SocketAddr,
    /// The socket that it has sent to.
    at: usize,
    guest: UdpSocket,
    heard: Instant,
}

struct Serving {
    stopped: OwnedFd,
    sockets: Vec<(UdpSocket, SocketAddrV4)>,
    clients: Vec<Client>,
}

impl Serving {
    fn run(mut self) {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let ready = {
                let sockets = self.sockets.iter().map(|(socket, _)| socket.as_fd());
                let guests = self.clients.iter().map(|client| client.guest.as_fd());
                let mut fds: Vec<_> = std::iter::once(self.stopped.as_fd())
                    .chain(sockets)
                    .chain(guests)
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                    .collect();
                // Interrupted or not: what is ready decides.
                let _ = poll(&mut fds, None);
                let ready = fds.iter().map(|fd| !fd.revents().is_empty());
                ready.collect::<Vec<_>>()
            };
            if ready[0] {
                return;
            }
            let (sockets, guests) = ready[1..].split_at(self.sockets.len());
            // Answers first: what comes in may replace clients.
            for (index, _) in guests.iter().enumerate().filter(|(_, ready)| **ready) {
                self.answer(index, &mut datagram);
            }
            for (index, _) in sockets.iter().enumerate().filter(|(_, ready)| **ready) {
                self.forward(index, &mut datagram);
            }
        }
    }

    fn forward(&mut self, at: usize, datagram: &mut [u8]) {
        for _ in 0..TURN {
            let Ok((bytes, address)) = self.sockets[at].0.recv_from(datagram) else {
                return;
            };
            match self.client(at, address) {
                // As everywhere with UDP, what is not taken is lost.
                Ok(client) => drop(client.guest.send(&datagram[..bytes])),
                Err(error) => log::debug!("a datagram of {address} is not passed on: {error}"),
            }
        }
    }

    fn client(&mut self, at: usize, address: SocketAddr) -> io::Result<&Client> {
        let now = Instant::now();
        let known = |client: &Client| client.address == address && client.at == at;
        let index = match self.clients.iter().position(known) {
            Some(index) => index,
            None => {
                self.clients.retain(|client| now - client.heard < SILENCE);
                if self.clients.len() >= MOST {
                    let oldest = self
                        .clients
                        .iter()
                        .enumerate()
                        .min_by_key(|(_, client)| client.heard);
                    if let Some((index, _)) = oldest {
                        self.clients.swap_remove(index);
                    }
                }
                let guest = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                guest.set_nonblocking(true)?;
                guest.connect(self.sockets[at].1)?;
                self.clients.push(Client {
                    address,
                    at,
                    guest,
                    heard: now,
                });
                self.clients.len() - 1
            }
        };
        self.clients[index].heard = now;
        Ok(&self.clients[index])
    }

    fn answer(&self, index: usize, datagram: &mut [u8]) {
        let client = &self.clients[index];
        for _ in 0..TURN {
            match client.guest.recv(datagram) {
                Ok(bytes) => drop(
                    self.sockets[client.at]
                        .0
                        .send_to(&datagram[..bytes], client.address),
                ),
                // That nobody listens, for one, which reading makes forgotten.
                Err(_) => return,
            }
        }
    }
}
