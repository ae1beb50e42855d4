//! TCP with one interface of a guest: bounded connections, and nothing that waits.

use super::answers::Answers;
use super::connection::{Connection, socket};
use super::wire::{Kind, Wire};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Connections at a time.
const SEATS: usize = 16;
/// How long a connection has its place, if it does nothing and another wants it.
const IDLE: Duration = Duration::from_secs(1);
/// More turns than one frame can have anything come of.
const TURNS: usize = 8;

/// A service at an address of one interface.
pub struct Stack {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
}

fn at(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl Stack {
    /// One that listens, and whose numbers nobody can guess who does not know the seed.
    pub fn new(address: Ipv4Addr, seed: u64) -> Self {
        let mut wire = Wire::new(address);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        // There is room for one, and for one route; whoever sends something is at the other end of it.
        interface.update_ip_addrs(|all| {
            let _ = all.push(IpCidr::new(address.into(), 16));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(address);
        let mut sockets = SocketSet::new(Vec::new());
        let seat = |_| Connection::new(sockets.add(socket()));
        let connections = (0..SEATS).map(seat).collect();
        Self {
            wire,
            interface,
            sockets,
            connections,
        }
    }

    /// Takes a frame that the guest has sent, with the header that its device has before it.
    pub fn take(&mut self, frame: &[u8], now: Duration, answers: &mut Answers) {
        if Wire::look(frame) == Kind::Opening && !self.listens() {
            self.make_room(now);
            self.turn(now, answers);
            if !self.listens() {
                // It comes again; a refusal would be the end of it.
                return;
            }
        }
        self.wire.take(frame, &mut answers.counted);
        self.turn(now, answers);
    }

    /// Does what there is to do now.
    pub fn turn(&mut self, now: Duration, answers: &mut Answers) {
        for _ in 0..TURNS {
            self.interface
                .poll(at(now), &mut self.wire, &mut self.sockets);
            let mut has_done = false;
            for connection in &mut self.connections {
                let socket = self.sockets.get_mut::<Socket>(connection.socket);
                has_done |= connection.turn(socket, now, answers);
            }
            if !has_done {
                break;
            }
        }
    }

    /// When there is something to do without a frame.
    pub fn due(&mut self, now: Duration) -> Option<Duration> {
        let delay = self.interface.poll_delay(at(now), &self.sockets)?;
        Some(now + Duration::from_micros(delay.total_micros()))
    }

    /// The next frame for the guest.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.wire.next_frame()
    }

    fn listens(&self) -> bool {
        let mut all = self.connections.iter();
        all.any(|it| self.sockets.get::<Socket>(it.socket).is_listening())
    }

    /// Ends the connection that has been idle for longest, if that is long enough. One that has ended, and only waits for what
    /// may be under way still, is idle from the first.
    fn make_room(&mut self, now: Duration) {
        let sockets = &self.sockets;
        let state = |it: &Connection| sockets.get::<Socket>(it.socket).state();
        let over = |it: &&Connection| state(it) == State::TimeWait;
        let idle = |it: &&Connection| now.saturating_sub(it.since) >= IDLE;
        let oldest = || self.connections.iter().min_by_key(|it| it.since);
        let found = self.connections.iter().find(over);
        if let Some(connection) = found.or_else(|| oldest().filter(idle)) {
            let handle = connection.socket;
            self.sockets.get_mut::<Socket>(handle).abort();
        }
    }
}
