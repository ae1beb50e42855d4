//! One TCP connection that is proxied: what comes on one side goes out on the other.
//!
//! No bytes are kept here. What one side has sent is looked at, the other takes of it what it can, and that much is
//! taken from the first; the rest stays in the kernel, which stops the sender in time.

use super::settling::{Settling, has_answered};
use super::source::{Source, Users};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, shutdown, socket_with, sockopt};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Buffers of one connection before others have their turn.
const TURN: usize = 16;
/// What may wait in the kernel for one reader, in bytes, beyond what is on its way to it.
static UNSENT: libc::c_int = 256 << 10;
/// When a client that says nothing is asked whether it is there, how often, and how many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(120), Duration::from_secs(15), 4);

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Progress {
    /// Its turn is over.
    More,
    /// Until there is an event.
    Blocked,
    /// The end was passed on both ways.
    Done,
    /// There is nobody where it leads to, or somebody who refuses.
    Unreachable { refused: bool },
    /// One side has failed.
    Failed,
}

/// How far the way to the server is.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// It was asked then, and has not answered.
    Asked(Instant),
    /// It refuses, or nobody is there.
    Nobody,
    Connected,
}

/// One direction.
#[derive(Default)]
struct Flow {
    ended: bool,
    end_passed_on: bool,
}

pub(super) struct Connection {
    client: TcpStream,
    server: OwnedFd,
    reach: Reach,
    /// Where else to try, should the server be unreachable.
    others: VecDeque<SocketAddr>,
    /// The guest's address that it leads to.
    pub guest: Option<SocketAddr>,
    /// Since when a guest that serves others refuses this client.
    pub refused: Option<Instant>,
    inward: Flow,
    outward: Flow,
    pub source: Source,
    /// When anything was last heard of it.
    pub heard: Instant,
}

impl Connection {
    /// A client, and a server that it is being [connected](begin) to.
    pub fn new(
        client: TcpStream,
        server: OwnedFd,
        others: VecDeque<SocketAddr>,
        source: Source,
        now: Instant,
    ) -> io::Result<Self> {
        prepare(&client)?;
        keep_alive(&client)?;
        Ok(Self {
            client,
            server,
            reach: Reach::Asked(now),
            others,
            guest: None,
            refused: None,
            inward: Flow::default(),
            outward: Flow::default(),
            source,
            heard: now,
        })
    }

    pub fn client(&self) -> &TcpStream {
        &self.client
    }

    pub fn server(&self) -> &OwnedFd {
        &self.server
    }

    /// Goes on to the next server, to which nothing has been sent yet.
    pub fn try_next(&mut self, now: Instant) -> io::Result<()> {
        self.server = begin(&mut self.others)?;
        self.reach = Reach::Asked(now);
        // A guest that is tried again gets no more time for it.
        if self.guest.is_none() {
            self.heard = now;
        }
        Ok(())
    }

    /// Has [`try_next`](Self::try_next) try that server once more.
    pub fn try_again(&mut self, server: SocketAddr) {
        self.others.push_back(server);
    }

    pub fn is_connected(&self) -> bool {
        self.reach == Reach::Connected
    }

    /// Is there a connection to the server, or may there be one soon?
    pub fn has_server(&self) -> bool {
        self.reach != Reach::Nobody
    }

    /// Has one side said that it will send no more?
    pub fn is_half_closed(&self) -> bool {
        self.inward.ended || self.outward.ended
    }

    /// Has the client closed its socket, as far as the kernel knows? What it has sent and nobody has read is all there
    /// is then.
    pub fn is_abandoned(&self, users: &Users) -> bool {
        let ends = self
            .client
            .peer_addr()
            .and_then(|peer| Ok((peer, self.client.local_addr()?)));
        self.inward.ended
            && ends.is_ok_and(|(peer, here)| users.has_closed(libc::IPPROTO_TCP, peer, here))
    }

    /// Moves what can be moved.
    pub fn serve(&mut self, buffer: &mut [u8], now: Instant) -> Progress {
        if !self.is_connected() {
            match self.look_whether_connected() {
                Progress::Done => self.reach = Reach::Connected,
                other => {
                    if matches!(other, Progress::Unreachable { .. }) {
                        self.reach = Reach::Nobody;
                    }
                    return other;
                }
            }
            self.heard = now;
        }
        let (client, server) = (self.client.as_fd(), self.server.as_fd());
        let (inward, moved) = self.inward.run(client, server, buffer);
        let (outward, moved_out) = self.outward.run(server, client, buffer);
        if moved || moved_out {
            self.heard = now;
        }
        match (inward, outward) {
            (Progress::Failed, _) | (_, Progress::Failed) => Progress::Failed,
            (Progress::Done, Progress::Done) => Progress::Done,
            (Progress::More, _) | (_, Progress::More) => Progress::More,
            _ => Progress::Blocked,
        }
    }

    fn look_whether_connected(&self) -> Progress {
        if let Err(error) = recv(&self.client, &mut [0][..], RecvFlags::PEEK)
            && error != Errno::AGAIN
        {
            // The client has not waited for it.
            return Progress::Failed;
        }
        match sockopt::socket_error(&self.server) {
            Ok(Ok(())) => {}
            Ok(Err(Errno::CONNREFUSED)) => return Progress::Unreachable { refused: true },
            // It had accepted: whoever refuses is told of by CONNREFUSED.
            Ok(Err(Errno::CONNRESET)) => return Progress::Failed,
            _ => return Progress::Unreachable { refused: false },
        }
        match rustix::net::getpeername(&self.server) {
            Ok(_) => Progress::Done,
            Err(Errno::NOTCONN) => Progress::Blocked,
            Err(_) => Progress::Unreachable { refused: false },
        }
    }

    /// Lets both sides see that the connection failed, rather than a regular end. A server that has been asked just
    /// now and not answered yet is left.
    pub fn abort(self, now: Instant) -> Option<Settling> {
        let _ = sockopt::set_socket_linger(&self.client, Some(Duration::ZERO));
        let _ = sockopt::set_socket_linger(&self.server, Some(Duration::ZERO));
        match self.reach {
            Reach::Asked(at) if !has_answered(&self.server) => {
                Settling::new(self.server, self.source, self.guest, at, now)
            }
            _ => None,
        }
    }
}

/// Begins to connect to the first of the servers that the host has a way to; those before it are removed, too.
pub(super) fn begin(servers: &mut VecDeque<SocketAddr>) -> io::Result<OwnedFd> {
    let mut last = io::Error::from(io::ErrorKind::HostUnreachable);
    while let Some(server) = servers.pop_front() {
        match begin_at(server) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                log::debug!("{server} cannot be reached: {error}");
                last = error;
            }
        }
    }
    Err(last)
}

fn begin_at(server: SocketAddr) -> io::Result<OwnedFd> {
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    prepare(&socket)?;
    match connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn prepare(socket: &impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    let fd = socket.as_fd().as_raw_fd();
    let size = size_of_val(&UNSENT) as libc::socklen_t;
    let value = (&raw const UNSENT).cast();
    // SAFETY: TCP_NOTSENT_LOWAT reads an int. A kernel that refuses it lets more wait.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, size) };
    Ok(())
}

/// So that a client that has vanished does not hold its seat for good.
fn keep_alive(client: &TcpStream) -> io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(client, true)?;
    sockopt::set_tcp_keepidle(client, idle)?;
    sockopt::set_tcp_keepintvl(client, interval)?;
    Ok(sockopt::set_tcp_keepcnt(client, count)?)
}

impl Flow {
    /// Moves what can be moved, and tells whether anything was.
    fn run(&mut self, from: impl AsFd, to: impl AsFd, buffer: &mut [u8]) -> (Progress, bool) {
        let mut moved = false;
        for _ in 0..TURN {
            if self.ended {
                if !std::mem::replace(&mut self.end_passed_on, true)
                    && shutdown(&to, Shutdown::Write).is_err()
                {
                    return (Progress::Failed, moved);
                }
                return (Progress::Done, moved);
            }
            let step = recv(&from, &mut *buffer, RecvFlags::PEEK).and_then(|(seen, _)| {
                if seen == 0 {
                    self.ended = true;
                    return Ok(());
                }
                let taken = send(&to, &buffer[..seen], SendFlags::NOSIGNAL)?;
                moved |= taken > 0;
                discard(&from, &mut buffer[..taken])
            });
            match step {
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return (Progress::Blocked, moved),
                Err(_) => return (Progress::Failed, moved),
            }
        }
        (Progress::More, moved)
    }
}

/// Takes bytes that were seen out of a socket, without looking at them again.
fn discard(from: impl AsFd, mut seen: &mut [u8]) -> Result<(), Errno> {
    while !seen.is_empty() {
        match recv(&from, &mut *seen, RecvFlags::TRUNC) {
            // They are there, so this does not happen.
            Ok((0, _)) => return Err(Errno::PIPE),
            Ok((bytes, _)) => seen = &mut seen[bytes..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
