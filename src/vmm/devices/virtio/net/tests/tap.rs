//! The device on a real tap, in a namespace of the test's own: the kernel is the other side.

use super::super::*;
use crate::config::{Net, QueuePairs};
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, WRITE};
use isolation::isolated;
use kvmlet_host::net::Network;
use kvmlet_host::state::runtime::RuntimeDirectory;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

#[path = "../../../../../host/net/isolation.rs"]
#[allow(dead_code)] // part of it is for the host's own tests
pub(super) mod isolation;

const RX: usize = 0;
const TX: usize = 1;
const HEADER: usize = header::BYTES;
const GUEST: [u8; 4] = [10, 107, 0, 2];
const HOST: [u8; 4] = [10, 107, 0, 1];

struct Bench {
    driver: FakeDriver,
    network: Network,
    handle: NetHandle,
    host_mac: [u8; 6],
    next: u16,
    _runtime: tempfile::TempDir,
}

/// A guest that has accepted `mask` and given 16 buffers.
fn bench(pairs: u64, mask: u64) -> Bench {
    let runtime = tempfile::tempdir().unwrap();
    let mut config = Net::default();
    config.queues = QueuePairs::try_from(pairs).unwrap();
    let network = Network::set_up(
        &config,
        Some(&RuntimeDirectory::at(runtime.path()).unwrap()),
    )
    .unwrap();
    let params = NetParams {
        name: "eth0".into(),
        mac: network.interface().mac,
        mtu: network.interface().mtu,
        receive_limit: RateLimit::NONE,
        transmit_limit: RateLimit::NONE,
        poll: Duration::ZERO,
        vhost: false,
    };
    let ports = network
        .queues()
        .iter()
        .map(|queue| queue.clone() as Arc<dyn Port>)
        .collect();
    let (device, handle) = NetDevice::new(params, ports, Vec::new()).unwrap();
    let mut driver = FakeDriver::new(Box::new(device));
    assert!(driver.negotiate(mask & !(1 << 29)));
    (0..=2 * pairs as usize).for_each(|queue| driver.set_up_queue(queue));
    driver.write(0x70, 15);
    let mut bench = Bench {
        driver,
        network,
        handle,
        host_mac: [0; 6],
        next: 0,
        _runtime: runtime,
    };
    (0..16).for_each(|index| bench.give(index));
    bench.resolve();
    bench
}

fn buffer(index: u16) -> u64 {
    BUFFERS + 0x1000 * u64::from(index)
}

impl Bench {
    fn give(&mut self, index: u16) {
        self.driver
            .describe(RX, index, (buffer(index), 2048, WRITE, 0));
        self.driver.offer(RX, index);
    }

    fn send(&mut self, header: [u8; HEADER], frame: &[u8]) {
        let at = BUFFERS + 0x30_0000;
        self.driver.put(at, &[&header, frame].concat());
        self.driver
            .send(TX, &[(at, (HEADER + frame.len()) as u32, 0)]);
        self.driver.used(TX);
    }

    /// The next frame, header included, put together from its buffers, which are given again.
    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut left = 1;
        while left > 0 {
            let (head, count) = self.driver.used(RX);
            assert_eq!(head, u32::from(self.next), "in order");
            bytes.extend(self.driver.bytes(buffer(self.next), count as usize));
            if bytes.len() == count as usize {
                left = u16::from_le_bytes([bytes[10], bytes[11]]);
            }
            left -= 1;
            self.give(self.next);
            self.next = (self.next + 1) % 16;
        }
        bytes
    }

    /// The next frame of this Ethernet type.
    fn receive_type(&mut self, kind: [u8; 2]) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let frame = self.receive();
            if frame[HEADER + 12..HEADER + 14] == kind {
                return frame;
            }
            assert!(Instant::now() < deadline);
        }
    }

    /// Asks for the host's hardware address, as any guest does first.
    fn resolve(&mut self) {
        let mac = self.network.interface().mac.octets();
        let request = [
            &[0xff; 6][..],
            &mac,
            &[8, 6],
            &[0, 1, 8, 0, 6, 4, 0, 1],
            &mac,
            &GUEST,
            &[0; 6],
            &HOST,
        ]
        .concat();
        self.send([0; HEADER], &request);
        let answer = self.receive_type([8, 6]);
        let arp = &answer[HEADER + 14..];
        assert_eq!((&arp[6..8], &arp[14..18]), (&[0, 2][..], &HOST[..]));
        self.host_mac = arp[8..14].try_into().unwrap();
    }

    /// An IPv4 packet to the host, with a correct header checksum.
    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = (20 + payload.len()) as u16;
        let mut ip = [
            0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[12..16].copy_from_slice(&GUEST);
        ip[16..20].copy_from_slice(&HOST);
        let sum = !fold(&ip, 0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [
            &self.host_mac[..],
            &self.network.interface().mac.octets(),
            &[8, 0],
            &ip,
            payload,
        ]
        .concat()
    }

    /// A TCP segment to port 80 of the host, and the header that leaves its checksum to the host.
    fn segment(
        &self,
        sequence: u32,
        acknowledge: u32,
        flags: u8,
        data: &[u8],
    ) -> ([u8; HEADER], Vec<u8>) {
        let mut tcp = [
            &[0x30, 0x39, 0, 80][..],
            &sequence.to_be_bytes(),
            &acknowledge.to_be_bytes(),
        ]
        .concat();
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(data);
        // The pseudo header's sum, which the host completes.
        let pseudo = [
            &GUEST[..],
            &HOST,
            &[0, 6],
            &(tcp.len() as u16).to_be_bytes(),
        ]
        .concat();
        let sum = fold(&pseudo, 0);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut header = [0; HEADER];
        (header[0], header[6], header[8]) = (1, 34, 16);
        if data.len() > 1460 {
            (header[1], header[2]) = (1, 54);
            header[4..6].copy_from_slice(&1460u16.to_le_bytes());
        }
        (header, self.packet(6, &tcp))
    }
}

/// The one's complement sum of RFC 1071.
fn fold(bytes: &[u8], start: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn datagrams_go_both_ways() {
    isolated(
        "devices::virtio::net::tests::tap::datagrams_go_both_ways",
        || {
            // A host of few features, and one of all; with several queues the first is used until told otherwise.
            for (pairs, mask) in [(1, feature::MAC | 1 << 32), (2, !0)] {
                let mut bench = bench(pairs, mask);
                let socket = UdpSocket::bind("10.107.0.1:7000").unwrap();
                socket.connect("10.107.0.2:7001").unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                // UDP without a checksum: the guest's port is filtered by nobody but kvmlet's own rules, which let
                // answers in only; so the host speaks first.
                socket.send(b"hello guest").unwrap();
                let frame = bench.receive_type([8, 0]);
                assert_eq!(&frame[HEADER + 42..], b"hello guest");
                let datagram = [&[0x1b, 0x59, 0x1b, 0x58, 0, 18, 0, 0][..], b"hello host"].concat();
                let packet = bench.packet(17, &datagram);
                bench.send([0; HEADER], &packet);
                let mut bytes = [0; 100];
                assert_eq!(socket.recv(&mut bytes).unwrap(), 10);
                assert_eq!(&bytes[..10], b"hello host");
                let stats = bench.handle.stats();
                assert_eq!((stats.transmit.errors, stats.receive.errors), (0, 0));
            }
        },
    );
}

#[test]
fn offloads_carry_segments_larger_than_the_mtu() {
    isolated(
        "devices::virtio::net::tests::tap::offloads_carry_segments_larger_than_the_mtu",
        || {
            let mut bench = bench(1, !0);
            // The guest's rules let no guest open a connection to the host: this test takes them away.
            std::process::Command::new("nft")
                .args(["flush", "ruleset"])
                .status()
                .unwrap();
            let listener = TcpListener::bind("10.107.0.1:80").unwrap();
            let (header, syn) = bench.segment(1000, 0, 2, &[]);
            bench.send(header, &syn);
            let answer = bench.receive_type([8, 0]);
            assert_eq!(answer[HEADER + 47] & 0x12, 0x12, "SYN and ACK");
            let theirs = number(&answer[HEADER + 38..HEADER + 42]).wrapping_add(1);
            // One segment of 20000 bytes, which the host cuts, or takes as it is; its checksum is the host's work.
            let data: Vec<u8> = (0..20_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
            let (header, segment) = bench.segment(1001, theirs, 0x18, &data);
            bench.send(header, &segment);
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let mut received = vec![0; data.len()];
            stream.read_exact(&mut received).unwrap();
            assert!(received == data);
            // And back: the host sends more than an MTU in one frame, across buffers of 2 KiB.
            stream.write_all(&data).unwrap();
            let (mut bytes, mut largest) = (Vec::<u8>::new(), 0);
            while bytes.len() < data.len() {
                let frame = bench.receive_type([8, 0]);
                let packet = &frame[HEADER + 14..];
                let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                let start = 20 + usize::from(packet[32] >> 4) * 4;
                bytes.extend(&packet[start..total]);
                largest = largest.max(total);
                let (header, ack) =
                    bench.segment(21_001, theirs.wrapping_add(bytes.len() as u32), 0x10, &[]);
                bench.send(header, &ack);
            }
            assert!(bytes == data);
            assert!(largest > 1500, "the largest packet had {largest} bytes");
            assert_eq!(bench.handle.stats().receive.drops, 0);
        },
    );
}
