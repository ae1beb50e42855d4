//! The device between a fake driver and a socket that stands for the tap.

mod contract;
mod control;
mod metadata;
mod receive;
mod socket;
mod tap;
mod transmit;
mod vhost;

use super::*;
use crate::config::NetStats;
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, WRITE};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const RX: usize = 0;
const TX: usize = 1;
const EVENT_IDX: u64 = 1 << 29;
const HEADER: usize = header::BYTES;

/// One end of a socket that keeps frames apart, as a tap does.
struct SocketPort {
    socket: OwnedFd,
    offloads: Mutex<Offloads>,
    attached: AtomicBool,
}

impl AsFd for SocketPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Port for SocketPort {
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        *self.offloads.lock().unwrap() = offloads;
        Ok(())
    }

    fn attach(&self, attached: bool) -> io::Result<()> {
        self.attached.store(attached, Ordering::SeqCst);
        Ok(())
    }
}

struct Bench {
    driver: FakeDriver,
    handle: NetHandle,
    ports: Vec<Arc<SocketPort>>,
    far: Vec<OwnedFd>,
}

impl Bench {
    fn new(name: &str, pairs: usize) -> Self {
        let (mut ports, mut far) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (a, b) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
            ports.push(Arc::new(SocketPort {
                socket: a,
                offloads: Mutex::default(),
                attached: AtomicBool::new(false),
            }));
            far.push(b);
        }
        let params = NetParams {
            name: name.into(),
            mac: "02:6b:00:00:00:01".parse().unwrap(),
            mtu: Some(1400),
            receive_limit: RateLimit::NONE,
            transmit_limit: RateLimit::NONE,
            poll: Duration::from_micros(50),
            vhost: false,
        };
        let dynamic = ports
            .iter()
            .map(|port| port.clone() as Arc<dyn Port>)
            .collect();
        let (device, handle) = NetDevice::new(params, dynamic, Vec::new()).unwrap();
        Self {
            driver: FakeDriver::new(Box::new(device)),
            handle,
            ports,
            far,
        }
    }

    /// A bench whose driver has accepted what is offered within `mask`.
    fn ready(name: &str, pairs: usize, mask: u64) -> Self {
        let mut bench = Self::new(name, pairs);
        bench.set_up(mask);
        bench
    }

    fn set_up(&mut self, mask: u64) {
        assert!(self.driver.negotiate(mask | 1 << 32));
        let queues = if mask & feature::MQ != 0 {
            2 * self.far.len()
        } else {
            2
        };
        (0..=queues).for_each(|queue| self.driver.set_up_queue(queue));
        self.driver.write(0x70, 15);
        assert!(!self.driver.needs_reset());
    }

    /// A frame arrives for the guest.
    fn arrive(&self, port: usize, frame: &[u8]) {
        self.arrive_with(port, [0; HEADER], frame);
    }

    fn arrive_with(&self, port: usize, header: [u8; HEADER], frame: &[u8]) {
        let bytes = [&header, frame].concat();
        assert_eq!(
            rustix::io::write(&self.far[port], &bytes).unwrap(),
            bytes.len()
        );
    }

    /// The next frame that the guest has sent, with its header.
    fn sent(&self, port: usize) -> Vec<u8> {
        let mut bytes = vec![0; 70_000];
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match rustix::io::read(&self.far[port], &mut bytes) {
                Ok(count) => return bytes[..count].to_vec(),
                Err(error) => assert_eq!(error, rustix::io::Errno::AGAIN),
            }
            assert!(Instant::now() < deadline, "the frame does not come");
            std::thread::yield_now();
        }
    }

    /// Gives a receive buffer of this many bytes, at a place of its own.
    fn give(&mut self, index: u16, bytes: u32) -> u64 {
        let at = BUFFERS + 0x2_0000 * u64::from(index);
        self.driver.describe(RX, index, (at, bytes, WRITE, 0));
        self.driver.offer(RX, index);
        at
    }

    fn transmit(&mut self, frame: &[u8]) {
        let at = BUFFERS + 0x30_0000;
        self.driver.put(at, &[&[0; HEADER], frame].concat());
        self.driver
            .send(TX, &[(at, (HEADER + frame.len()) as u32, 0)]);
        self.driver.used(TX);
    }

    /// Waits until the statistics are as they should be.
    fn expect(&self, what: &str, check: impl Fn(&NetStats) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !check(&self.handle.stats()) {
            assert!(
                Instant::now() < deadline,
                "{what}: {:?}",
                self.handle.stats()
            );
            sleep(Duration::from_millis(1));
        }
    }
}

fn frame(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes)
        .map(|index| (index as u8).wrapping_mul(7) ^ seed)
        .collect()
}

#[test]
fn the_configuration_is_that_of_the_specification() {
    let mut bench = Bench::new("eth0", 2);
    let all = bench.driver.config(0, 16);
    assert_eq!(all[..6], [2, 0x6b, 0, 0, 0, 1]);
    assert_eq!(all[6..], [1, 0, 2, 0, 0x78, 5, 0, 0, 0, 0]);
    assert_eq!(bench.driver.config(5, 2), [1, 1]);
    assert_eq!(bench.driver.config(0xf00 - 4, 4), [0; 4]);
    assert_eq!(
        bench.driver.offered() & (feature::MQ | feature::MTU),
        feature::MQ | feature::MTU
    );
    let mut single = Bench::new("eth0", 1);
    assert_eq!(single.driver.offered() & feature::MQ, 0);
    assert_eq!(single.driver.config(8, 2), [0, 0]);
}
