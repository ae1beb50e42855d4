//! A guest with TCP of its own, and the service.

use super::*;
use serde_json::json;
use smoltcp::iface::{Config as Link, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OURS: [u8; 6] = [6, 1, 0x23, 0x45, 0x67, 1];
const HEADERS: usize = 12 + 14;

/// A guest's interface: packets, with what a driver and Ethernet put before them.
#[derive(Default)]
struct Wire {
    coming: VecDeque<Vec<u8>>,
    going: VecDeque<Vec<u8>>,
}

struct Come(Vec<u8>);

impl RxToken for Come {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0[HEADERS..])
    }
}

struct Room<'a>(&'a mut Wire);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; HEADERS + length];
        let result = f(&mut frame[HEADERS..]);
        // By a gateway: whose hardware address it has does not matter.
        frame[12..18].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[18..24].copy_from_slice(&HARDWARE);
        frame[24..26].copy_from_slice(&[8, 0]);
        self.0.going.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Come;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Come, Room<'_>)> {
        let frame = self.coming.pop_front()?;
        assert_eq!(frame[..12], [0; 12], "checksums are there");
        assert_eq!(frame[12..18], HARDWARE);
        assert_eq!(frame[18..24], OURS);
        Some((Come(frame), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        Some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // It looks at all checksums.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

struct Guest {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
}

impl Guest {
    fn new() -> Self {
        let mut wire = Wire::default();
        let link = Link::new(HardwareAddress::Ip);
        let mut interface = Interface::new(link, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|all| all.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface
            .routes_mut()
            .add_default_ipv4_route(ADDRESS)
            .unwrap();
        Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            next_port: 1000,
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 8192]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket>(handle);
        let to = (IpAddress::from(ADDRESS), 80);
        let context = self.interface.context();
        socket.connect(context, to, self.next_port).unwrap();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn state(&mut self, handle: SocketHandle) -> State {
        self.socket(handle).state()
    }

    fn poll(&mut self, now: Duration) {
        let now = Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }
}

/// Both, without sockets between.
struct Bench {
    guest: Guest,
    stack: Stack,
    answers: Answers,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let mut answers = Answers::new(Version::V1, false, [1; 32]);
        answers.set(json!({ "name": "vm-1", "long": "x".repeat(50_000) }));
        Self {
            guest: Guest::new(),
            stack: Stack::new(ADDRESS, 7),
            answers,
            now: Duration::ZERO,
        }
    }

    /// Has frames go both ways until there are none.
    fn run(&mut self) {
        for _ in 0..1000 {
            self.guest.poll(self.now);
            let sent: Vec<_> = self.guest.wire.going.drain(..).collect();
            let mut is_still = sent.is_empty();
            for frame in sent {
                self.stack.take(&frame, self.now, &mut self.answers);
            }
            self.stack.turn(self.now, &mut self.answers);
            while let Some(frame) = self.stack.next_frame() {
                is_still = false;
                self.guest.wire.coming.push_back(frame);
            }
            if is_still {
                return;
            }
        }
        panic!("frames go on without end");
    }

    fn say(&mut self, handle: SocketHandle, text: &str) {
        let sent = self.guest.socket(handle).send_slice(text.as_bytes());
        assert_eq!(sent, Ok(text.len()));
    }

    /// All that comes, until nothing more does.
    fn hear(&mut self, handle: SocketHandle) -> String {
        let mut heard = Vec::new();
        for _ in 0..100 {
            self.run();
            // What waits to be acknowledged does so for a moment.
            self.now += Duration::from_millis(20);
            let socket = self.guest.socket(handle);
            while socket.can_recv() {
                let taken = socket.recv(|bytes| {
                    heard.extend_from_slice(bytes);
                    (bytes.len(), bytes.len())
                });
                assert!(taken.unwrap() > 0);
            }
        }
        String::from_utf8(heard).unwrap()
    }

    fn ask(&mut self, handle: SocketHandle, request: &str) -> String {
        self.run();
        self.say(handle, request);
        self.hear(handle)
    }
}

const NAME: &str = "GET /name HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n";

/// A guest's question who has an address.
fn question(address: Ipv4Addr) -> Vec<u8> {
    let mut question = vec![0; 12];
    question.extend([0xff; 6].iter().chain(&HARDWARE));
    question.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    question.extend(HARDWARE.iter().chain(&GUEST.octets()).chain(&[0; 6]));
    question.extend(address.octets());
    question
}

#[test]
fn a_guest_is_told_where_the_address_is() {
    let mut bench = Bench::new();
    for (address, is_told) in [(ADDRESS, true), (GUEST, false)] {
        let (now, answers) = (bench.now, &mut bench.answers);
        bench.stack.take(&question(address), now, answers);
        let Some(told) = bench.stack.next_frame() else {
            assert!(!is_told);
            continue;
        };
        assert!(is_told);
        let mut expected = vec![0; 12];
        expected.extend(HARDWARE.iter().chain(&OURS));
        expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        expected.extend(OURS.iter().chain(&ADDRESS.octets()));
        expected.extend(HARDWARE.iter().chain(&GUEST.octets()));
        assert_eq!(told, expected);
    }
}

#[test]
fn requests_follow_each_other_on_a_connection() {
    let mut bench = Bench::new();
    let connection = bench.guest.connect();
    for _ in 0..2 {
        let told = bench.ask(connection, NAME);
        assert_eq!(
            told,
            "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nvm-1"
        );
    }
    // Two at once, and in pieces.
    let told = bench.ask(connection, &format!("{NAME}{NAME}GET /na"));
    assert_eq!(told.matches("vm-1").count(), 2);
    let told = bench.ask(connection, "me HTTP/1.1\r\n\r\n");
    assert_eq!(told.matches("vm-1").count(), 1);
    // Longer than all that TCP holds.
    let told = bench.ask(connection, "GET /long HTTP/1.1\r\n\r\n");
    assert!(told.ends_with(&"x".repeat(50_000)), "{}", told.len());
    let told = bench.ask(connection, "GET /name HTTP/1.0\r\n\r\n");
    assert!(told.contains("Connection: close"), "{told}");
    assert_eq!(bench.guest.state(connection), State::CloseWait);
}

#[test]
fn what_is_no_request_is_told_and_ends_its_connection() {
    for (text, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("GET /{}", "x".repeat(8 << 10)), 431),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n".into(),
            413,
        ),
    ] {
        let mut bench = Bench::new();
        let connection = bench.guest.connect();
        bench.run();
        let mut rest = text.as_bytes();
        let mut told = String::new();
        while !rest.is_empty() {
            let sent = bench.guest.socket(connection).send_slice(rest).unwrap();
            rest = &rest[sent..];
            told += &bench.hear(connection);
        }
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
        assert_eq!(bench.guest.state(connection), State::CloseWait);
        bench.guest.socket(connection).close();
        bench.run();
        // Its place is free again.
        let other = bench.guest.connect();
        assert!(bench.ask(other, NAME).ends_with("vm-1"));
    }
}

#[test]
fn who_says_nothing_makes_room_for_others_but_not_at_once() {
    let mut bench = Bench::new();
    let all: Vec<_> = (0..16).map(|_| bench.guest.connect()).collect();
    bench.run();
    for connection in &all {
        assert_eq!(bench.guest.state(*connection), State::Established);
    }
    let late = bench.guest.connect();
    bench.run();
    assert_eq!(bench.guest.state(late), State::SynSent);
    // All but the first two have said something meanwhile.
    bench.now += Duration::from_millis(900);
    for connection in &all[2..] {
        bench.say(*connection, NAME);
        bench.run();
    }
    // It tries again when it likes.
    for _ in 0..50 {
        if bench.guest.state(late) == State::Established {
            break;
        }
        bench.now += Duration::from_millis(100);
        bench.run();
    }
    assert_eq!(bench.guest.state(late), State::Established);
    bench.run();
    let over = all
        .iter()
        .filter(|it| bench.guest.state(**it) == State::Closed);
    assert_eq!(over.count(), 1);
    assert!(bench.ask(late, NAME).ends_with("vm-1"));
    // What was closed by both makes room at once.
    let over = bench.ask(late, "GET /name HTTP/1.0\r\n\r\n");
    assert!(over.ends_with("vm-1"));
    bench.guest.socket(late).close();
    bench.run();
    let next = bench.guest.connect();
    bench.run();
    assert_eq!(bench.guest.state(next), State::Established);
}

#[path = "process_tests.rs"]
mod process;
