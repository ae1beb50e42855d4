//! The device with a driver that follows the rules and breaks them, and a host that hands it streams.

mod contract;
mod flow;
mod hosts;
mod life;
mod limits;
mod rules;

use super::packet::{HEADER_BYTES, HOST_CID, Header, Operation, STREAM};
use super::{VsockHandle, VsockSpec};
use crate::config::VsockStats;
use crate::devices::virtio::DeviceSpec;
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, WRITE};
use hosts::FakeHost;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RX: usize = 0;
const TX: usize = 1;
const EVENTS: usize = 2;
const CID: u32 = 7;
/// What the guest says that it has room for, in each connection.
const ROOM: u32 = 64 << 10;
/// Receive buffers that are there all the time, and the size of each.
const RX_BUFFERS: u16 = 8;
const RX_BYTES: u32 = 4096;
/// Where data to send lie.
const TX_AT: u64 = BUFFERS + 0x10_0000;
const LONG: Duration = Duration::from_secs(10);

struct Bench {
    driver: FakeDriver,
    host: Arc<FakeHost>,
    handle: VsockHandle,
    /// A request after which the guest has seen nothing of the connection yet.
    next_port: u32,
}

impl Bench {
    /// A device that runs, and a guest that takes what it is sent.
    fn new() -> Self {
        let mut bench = Self::without_buffers();
        (0..RX_BUFFERS).for_each(|index| bench.give(index));
        bench
    }

    fn without_buffers() -> Self {
        let host = Arc::new(FakeHost::new());
        let spec = VsockSpec {
            guest_cid: CID,
            host: host.clone(),
        };
        let (device, handle) = spec.build().unwrap();
        Self {
            driver: FakeDriver::ready(Box::new(device)),
            host,
            handle,
            next_port: 5000,
        }
    }

    /// Gives a receive buffer.
    fn give(&mut self, index: u16) {
        let at = BUFFERS + u64::from(index) * u64::from(RX_BYTES);
        self.driver.describe(RX, index, (at, RX_BYTES, WRITE, 0));
        self.driver.offer(RX, index);
    }

    /// The next packet for the guest, which gives its buffer anew.
    fn receive(&mut self) -> (Header, Vec<u8>) {
        let (head, written) = self.driver.used(RX);
        let packet = self.packet(head, written);
        self.give(head as u16);
        packet
    }

    fn packet(&self, head: u32, written: u32) -> (Header, Vec<u8>) {
        let at = BUFFERS + u64::from(head) * u64::from(RX_BYTES);
        let bytes = self.driver.bytes(at, written as usize);
        let (header, data) = bytes.split_at(HEADER_BYTES);
        let header = Header::parse(header.try_into().unwrap()).unwrap();
        assert_eq!(header.len as usize, data.len());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, u64::from(CID)));
        (header, data.to_vec())
    }

    /// The next packet, which has no data.
    fn expect(&mut self, operation: Operation, guest: &Guest) -> Header {
        let (header, data) = self.receive();
        assert_eq!(header.operation, operation as u16, "{header:?}");
        assert_eq!((header.src_port, header.dst_port), (guest.to, guest.from));
        assert_eq!((header.socket_type, data.len()), (STREAM, 0));
        header
    }

    /// Nothing comes for the guest.
    fn expect_nothing(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        if let Some((head, written)) = self.driver.poll_used(RX) {
            panic!("{:?}", self.packet(head, written));
        }
    }

    /// Sends a packet as it is, and waits until the device has taken it.
    fn send(&mut self, header: Header, data: &[u8]) {
        let bytes = [&header.to_bytes().unwrap(), data].concat();
        self.driver.put(TX_AT, &bytes);
        self.driver.send(TX, &[(TX_AT, bytes.len() as u32, 0)]);
        self.driver.used(TX);
    }

    fn tell(&mut self, guest: &Guest, operation: Operation, flags: u32) {
        let header = Header {
            flags,
            ..guest.header(operation)
        };
        self.send(header, &[]);
    }

    /// Data from the guest.
    fn data(&mut self, guest: &Guest, data: &[u8]) {
        let header = Header {
            len: data.len() as u32,
            ..guest.header(Operation::Data)
        };
        self.send(header, data);
    }

    /// A connection from the guest to a port of the host, and the host's program.
    fn connect_out(&mut self, port: u32) -> (Guest, UnixStream) {
        self.next_port += 1;
        let guest = Guest::new(self.next_port, port);
        self.tell(&guest, Operation::Request, 0);
        let question = self.host.question();
        assert_eq!(question.port, port);
        let program = self.host.answer(question.id);
        self.expect(Operation::Response, &guest);
        (guest, program)
    }

    /// A connection from a program of the host to a port of the guest.
    fn connect_in(&mut self, port: u32) -> (Guest, UnixStream) {
        let mut program = self.host.connect(port);
        let (header, _) = self.receive();
        assert_eq!(header.operation, Operation::Request as u16);
        assert_eq!(header.dst_port, port);
        let guest = Guest::new(port, header.src_port);
        self.tell(&guest, Operation::Response, 0);
        assert_eq!(
            read(&mut program, 14),
            format!("OK {}\n", guest.to).as_bytes()
        );
        (guest, program)
    }

    /// Waits until the guest has that many connections.
    fn expect_connections(&self, number: u64) {
        self.expect_stats("connections", |stats| stats.connections == number);
    }

    /// Waits until the statistics are as they should be.
    fn expect_stats(&self, what: &str, check: impl Fn(&VsockStats) -> bool) {
        let deadline = Instant::now() + LONG;
        while !check(&self.handle.stats()) {
            let stats = self.handle.stats();
            assert!(Instant::now() < deadline, "{what}: {stats:?}");
            std::thread::yield_now();
        }
    }
}

/// The guest's end of a connection.
#[derive(Clone, Copy, Debug)]
struct Guest {
    from: u32,
    to: u32,
    /// What it has taken so far.
    forwarded: u32,
    room: u32,
}

impl Guest {
    fn new(from: u32, to: u32) -> Self {
        Self {
            from,
            to,
            forwarded: 0,
            room: ROOM,
        }
    }

    fn header(&self, operation: Operation) -> Header {
        Header {
            src_cid: CID.into(),
            dst_cid: HOST_CID,
            src_port: self.from,
            dst_port: self.to,
            socket_type: STREAM,
            operation: operation as u16,
            buf_alloc: self.room,
            fwd_cnt: self.forwarded,
            ..Header::default()
        }
    }
}

fn read(program: &mut UnixStream, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    program.read_exact(&mut data).unwrap();
    data
}

/// The program has heard all.
fn expect_end(program: &mut UnixStream) {
    let mut rest = Vec::new();
    program.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

fn write(program: &mut UnixStream, bytes: &[u8]) {
    program.write_all(bytes).unwrap();
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index % 251) as u8).collect()
}
