//! Published TCP ports for clients that no DNAT rule serves: those on the host itself.
//!
//! One thread, no buffers but for what one side has sent and the other does not take yet, and a bound on
//! connections: further clients wait in the listener's queue.

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, socket_with, sockopt};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// The most connections at a time.
const MOST: usize = 256;
/// How many more may wait at each port; the host's own bound (`net.core.somaxconn`) may be lower.
const BACKLOG: i32 = 1024;
/// What is read at a time, and the most that waits for a slow reader in one direction, in bytes.
const CHUNK: usize = 64 << 10;
/// Chunks of one connection before others have their turn.
const TURN: usize = 16;
/// How long no connection is accepted after the host has refused one, for lack of descriptors mostly.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Names in epoll: the stop event, listeners from 1 on, and two for each connection from here on.
const STOP: u64 = 0;
const FIRST_CONNECTION: u64 = 1 << 32;

/// The running proxy; dropping it ends its connections.
pub(super) struct TcpProxy {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl TcpProxy {
    /// Serves the listeners, each of which leads to an address.
    pub fn start(listeners: Vec<(TcpListener, SocketAddrV4)>) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(STOP);
        epoll::add(&epoll, &stop, token, epoll::EventFlags::IN)?;
        for (listener, _) in &listeners {
            listener.set_nonblocking(true)?;
            // The standard library's backlog is short for a burst of clients.
            listen(listener, BACKLOG)?;
        }
        let mut serving = Serving {
            epoll,
            listeners,
            accepting: false,
            connections: HashMap::new(),
            next: FIRST_CONNECTION,
            chunk: Vec::new(),
        };
        serving.accept_more(true)?;
        let thread = Builder::new()
            .name("tcp-proxy".into())
            .spawn(move || serving.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Serving {
    epoll: OwnedFd,
    listeners: Vec<(TcpListener, SocketAddrV4)>,
    accepting: bool,
    connections: HashMap<u64, Connection>,
    next: u64,
    chunk: Vec<u8>,
}

impl Serving {
    fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        // Connections that had their turn and have more to do.
        let mut again: Vec<u64> = Vec::new();
        loop {
            let at_once = Timespec::default();
            let timeout = match (again.is_empty(), self.accepting) {
                (false, _) => Some(&at_once),
                (true, false) if self.connections.len() < MOST => Some(&PAUSE),
                (true, _) => None,
            };
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, timeout) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return log::warn!("published ports are closed: {error}"),
            }
            if !self.accepting && events.is_empty() && self.connections.len() < MOST {
                let _ = self.accept_more(true);
            }
            let mut due = std::mem::take(&mut again);
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    listener @ 1..FIRST_CONNECTION => self.accept(listener as usize - 1),
                    side => due.push(side & !1),
                }
            }
            due.sort_unstable();
            due.dedup();
            for token in due {
                if self.serve(token) {
                    again.push(token);
                }
            }
        }
    }

    /// Listens to the listeners, or not.
    fn accept_more(&mut self, yes: bool) -> io::Result<()> {
        if self.accepting == yes {
            return Ok(());
        }
        for (index, (listener, _)) in self.listeners.iter().enumerate() {
            if yes {
                let token = epoll::EventData::new_u64(index as u64 + 1);
                epoll::add(&self.epoll, listener, token, epoll::EventFlags::IN)?;
            } else {
                epoll::delete(&self.epoll, listener)?;
            }
        }
        self.accepting = yes;
        Ok(())
    }

    fn accept(&mut self, index: usize) {
        while self.connections.len() < MOST {
            let (listener, target) = &self.listeners[index];
            let result = match listener.accept() {
                Ok((client, _)) => Connection::new(client, *target),
                Err(error) => Err(error),
            };
            match result.and_then(|connection| self.add(connection)) {
                Ok(()) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                    _ => {
                        log::warn!("a connection to a published port is not accepted now: {error}");
                        break;
                    }
                },
            }
        }
        let _ = self.accept_more(false);
    }

    fn add(&mut self, connection: Connection) -> io::Result<()> {
        let token = self.next;
        // Edges: a side that has ended would else be reported until the other side has, too.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        for (side, stream) in [(0, &connection.client), (1, &connection.guest)] {
            let token = epoll::EventData::new_u64(token + side);
            epoll::add(&self.epoll, stream, token, flags)?;
        }
        self.next += 2;
        self.connections.insert(token, connection);
        Ok(())
    }

    /// Moves what can be moved; true if there is more to move.
    fn serve(&mut self, token: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&token) else {
            return false;
        };
        // Made when a client comes.
        self.chunk.resize(CHUNK, 0);
        match connection.serve(&mut self.chunk) {
            Progress::More => return true,
            Progress::Blocked => return false,
            Progress::Done => {}
            Progress::Failed => connection.abort(),
        }
        // Closing the sockets takes them out of epoll.
        self.connections.remove(&token);
        if !self.accepting {
            let _ = self.accept_more(true);
        }
        false
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Progress {
    /// Its turn is over.
    More,
    /// Until there is an event.
    Blocked,
    /// The end was passed on.
    Done,
    /// One side has failed.
    Failed,
}

/// What is on its way in one direction.
#[derive(Default)]
struct Flow {
    /// Read, and not taken by the other side yet.
    pending: Vec<u8>,
    ended: bool,
    end_passed_on: bool,
}

struct Connection {
    client: TcpStream,
    guest: TcpStream,
    inward: Flow,
    outward: Flow,
}

impl Connection {
    fn new(client: TcpStream, target: SocketAddrV4) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let guest = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&guest, &target) {
            // That it fails later is seen when it is read.
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => {
                log::debug!("{target} cannot be reached: {error}");
                let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
        let guest = TcpStream::from(guest);
        for stream in [&client, &guest] {
            stream.set_nodelay(true)?;
            // So that a peer that has vanished does not hold its place for good.
            sockopt::set_socket_keepalive(stream, true)?;
        }
        Ok(Self {
            client,
            guest,
            inward: Flow::default(),
            outward: Flow::default(),
        })
    }

    fn serve(&mut self, chunk: &mut [u8]) -> Progress {
        let inward = self.inward.run(&self.client, &self.guest, chunk);
        let outward = self.outward.run(&self.guest, &self.client, chunk);
        match (inward, outward) {
            (Progress::Failed, _) | (_, Progress::Failed) => Progress::Failed,
            (Progress::Done, Progress::Done) => Progress::Done,
            (Progress::More, _) | (_, Progress::More) => Progress::More,
            _ => Progress::Blocked,
        }
    }

    /// Lets both sides see that the connection failed, rather than a regular end.
    fn abort(&self) {
        for stream in [&self.client, &self.guest] {
            let _ = sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
        }
    }
}

impl Flow {
    fn run(&mut self, mut from: &TcpStream, mut to: &TcpStream, chunk: &mut [u8]) -> Progress {
        for _ in 0..TURN {
            while !self.pending.is_empty() {
                match to.write(&self.pending) {
                    Ok(0) => return Progress::Failed,
                    Ok(written) => drop(self.pending.drain(..written)),
                    Err(error) => match blocked(&error) {
                        Some(progress) => return progress,
                        None => continue,
                    },
                }
            }
            // An allocation is kept only while it is needed.
            self.pending = Vec::new();
            if self.ended {
                if !std::mem::replace(&mut self.end_passed_on, true)
                    && to.shutdown(Shutdown::Write).is_err()
                {
                    return Progress::Failed;
                }
                return Progress::Done;
            }
            match from.read(chunk) {
                Ok(0) => self.ended = true,
                Ok(bytes) => match to.write(&chunk[..bytes]) {
                    Ok(written) => self.pending.extend_from_slice(&chunk[written..bytes]),
                    Err(error) => {
                        self.pending.extend_from_slice(&chunk[..bytes]);
                        if let Some(progress) = blocked(&error) {
                            return progress;
                        }
                    }
                },
                Err(error) => {
                    if let Some(progress) = blocked(&error) {
                        return progress;
                    }
                }
            }
        }
        Progress::More
    }
}

/// What an error means; nothing when the call is to be repeated.
fn blocked(error: &io::Error) -> Option<Progress> {
    match error.kind() {
        ErrorKind::WouldBlock => Some(Progress::Blocked),
        ErrorKind::Interrupted => None,
        _ => Some(Progress::Failed),
    }
}
