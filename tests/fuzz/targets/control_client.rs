//! Programs at a VM's control socket that send anything, in pieces, read nothing, and go: their supervisor holds little for
//! them, does what was asked for once, and has an ear for whoever keeps to the rules.
#![no_main]

mod memory;
mod peer;

use kvmlet_control::{Connection, Order, Report, Request, State, framed};
use kvmlet_run::{ControlListener, ControlSocket};
use kvmlet_spec::{Failure, Outcome, Reason};
use libfuzzer_sys::fuzz_target;
use peer::{Address, Peer};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Programs that try to be heard at once: more than are.
const MOST: usize = 20;
/// As many of them are held at a time, most only to be told that there are too many.
const HELD: usize = 16;
/// No more is held for all of them together, in bytes.
const MEMORY: usize = 512 << 10;
/// Nobody waits for it.
const NOW: Duration = Duration::ZERO;

struct Supervisor {
    socket: ControlSocket,
    state: State,
}

impl Supervisor {
    /// A turn, as it has them where something has happened.
    fn turn(&mut self, stats: &[u8]) {
        let wanted = self.socket.turn(self.state);
        let clients: BTreeSet<_> = wanted.iter().map(|wanted| wanted.client).collect();
        assert_eq!(clients.len(), wanted.len(), "two requests of one client");
        for wanted in wanted {
            let mut refused = None;
            match wanted.request.order {
                Order::Watch if !self.socket.watch(&wanted) => refused = Some(Failure::default()),
                Order::Watch => {}
                Order::Published => {
                    let ports = vec!["127.0.0.1:8080:80/tcp".into(); Report::MOST_PUBLISHED];
                    self.socket.tell(&wanted, &Report::Published(ports));
                }
                Order::Stats => self.socket.keep_stats(stats),
                _ => refused = Some(Failure::default()),
            }
            let vm = rustix::process::getpid();
            self.socket.answer(&wanted, refused, vm, self.state);
        }
        let watched = self.socket.slots().count();
        assert!(watched <= HELD + 1, "{watched} sockets are looked at");
        memory::expect_at_most(MEMORY);
    }
}

/// One of the requests there are.
fn request([kind, number, more, ..]: [u8; 4]) -> Vec<u8> {
    let order = match kind % 8 {
        0 => Order::Pause,
        1 => Order::Resume,
        2 => Order::Stop { patience_ms: None },
        3 => Order::Stats,
        4 => Order::Watch,
        5 => Order::Signal { signal: more },
        6 => Order::Published,
        _ => return b"GET /metrics HTTP/1.1\r\nHost: vm\r\n\r\n".into(),
    };
    let number = number.into();
    framed(&Request { number, order }.encode())
}

/// Who keeps to the rules is answered, once there is room for it.
fn expect_answer(supervisor: &mut Supervisor, address: &Address) {
    let mut honest = Connection::from(OwnedFd::from(address.connect()));
    let number = honest.request(Order::Pause, NOW).expect("room for it");
    // It is accepted, heard, and answered.
    (0..3).for_each(|_| supervisor.turn(b"{}"));
    loop {
        let told = honest.next(Some(Instant::now())).expect("an answer");
        match told.expect("an answer by now") {
            Report::Answer { to, refused } => {
                assert!(to == number && refused.is_some());
                return;
            }
            other => panic!("nobody has asked for {other:?}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let address = Address::of("control");
    let listener = ControlListener::new(address.listen().into()).expect("a socket that listens");
    memory::begin();
    let mut supervisor = Supervisor {
        socket: ControlSocket::new(listener),
        state: State::Running,
    };
    let mut peers: Vec<Peer> = Vec::new();
    let mut rest = input;
    while let Some(([what, which, a, b], behind)) = rest.split_first_chunk() {
        rest = behind;
        let (count, index) = (peers.len(), usize::from(*which) % peers.len().max(1));
        match (what & 7, peers.get_mut(index)) {
            (0, _) | (_, None) if count < MOST => peers.push(Peer::new(address.connect())),
            (1, Some(peer)) => {
                let bytes = request([*a, *b, *which, 0]);
                peer.say(&bytes[..bytes.len().min(usize::from(what >> 3) + 1)]);
            }
            (2, Some(peer)) => peer.say(&request([*a, *b, *which, 0])),
            (3, Some(peer)) => {
                let (said, behind) = rest.split_at(rest.len().min(usize::from(*a)));
                peer.say(said);
                rest = behind;
            }
            (4, Some(peer)) => drop(peer.hear(usize::from(*a) << 4)),
            (5, Some(peer)) => peer.shut(),
            (6, Some(_)) => drop(peers.remove(index)),
            _ => {
                supervisor.state = State::ALL[usize::from(*a) % State::ALL.len()];
                supervisor.socket.tell_state(supervisor.state);
            }
        }
        supervisor.turn(rest);
    }
    // Those who have gone make room.
    peers.truncate(usize::from(input.len() % 2 == 0) * 4);
    (0..3).for_each(|_| supervisor.turn(b"{}"));
    expect_answer(&mut supervisor, &address);
    let outcome = Outcome::new(Reason::Shutdown);
    supervisor
        .socket
        .tell_end(&Report::Ended(Box::new(outcome)));
});
