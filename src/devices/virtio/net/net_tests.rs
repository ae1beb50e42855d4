//! The device between a fake driver and a socket that stands for the tap.

use super::*;
use crate::config::Rate;
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, NEXT, WRITE};
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
        };
        let dynamic = ports
            .iter()
            .map(|port| port.clone() as Arc<dyn Port>)
            .collect();
        let (device, handle) = NetDevice::new(params, dynamic).unwrap();
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

    /// Gives a receive buffer of so many bytes, at a place of its own.
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

#[test]
fn frames_go_out_as_they_are() {
    let mut bench = Bench::ready("out", 1, !EVENT_IDX);
    let payload = frame(3000, 1);
    let mut header = [0; HEADER];
    // Needs its checksum at 34 + 16, TCP over IPv4 in pieces of 1400.
    header[..10].copy_from_slice(&[1, 1, 54, 0, 0x78, 5, 34, 0, 16, 0]);
    bench.driver.put(BUFFERS, &header);
    bench.driver.put(BUFFERS + 0x1000, &payload);
    // The header across two descriptors, the frame across two more.
    bench.driver.send(
        TX,
        &[
            (BUFFERS, 5, 0),
            (BUFFERS + 5, 7, 0),
            (BUFFERS + 0x1000, 1000, 0),
            (BUFFERS + 0x1000 + 1000, 2000, 0),
        ],
    );
    assert_eq!(bench.driver.used(TX), (0, 0));
    assert_eq!(bench.sent(0), [&header[..], &payload].concat());
    let stats = bench.handle.stats();
    assert_eq!((stats.transmit.frames, stats.transmit.bytes), (1, 3000));
    assert!(stats.interrupts >= 1 && stats.notifications <= 1);
}

#[test]
fn frames_come_in_one_buffer() {
    let mut bench = Bench::ready("in", 1, !(EVENT_IDX | feature::MRG_RXBUF));
    let at = bench.give(0, 2048);
    bench.arrive(0, &frame(100, 2));
    assert_eq!(bench.driver.used(RX), (0, 112));
    let bytes = bench.driver.bytes(at, 112);
    assert_eq!(bytes[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(bytes[HEADER..], frame(100, 2));
    bench.expect("one frame", |stats| {
        stats.receive.frames == 1 && stats.receive.bytes == 100
    });
}

#[test]
fn a_large_frame_fills_several_buffers_at_once() {
    let mut bench = Bench::ready("merge", 1, !EVENT_IDX);
    let places: Vec<u64> = (0..6).map(|index| bench.give(index, 1526)).collect();
    let payload = frame(5000, 3);
    let mut header = [0; HEADER];
    header[..10].copy_from_slice(&[1, 1, 54, 0, 0x78, 5, 34, 0, 16, 0]);
    bench.arrive_with(0, header, &payload);
    let used: Vec<_> = (0..4).map(|_| bench.driver.used(RX)).collect();
    assert_eq!(
        used,
        [(0, 1526), (1, 1526), (2, 1526), (3, 5012 - 3 * 1526)]
    );
    assert_eq!(bench.driver.poll_used(RX), None);
    let mut bytes = Vec::new();
    for (place, (_, count)) in places.iter().zip(used) {
        bytes.extend(bench.driver.bytes(*place, count as usize));
    }
    header[10] = 4;
    assert_eq!(bytes, [&header[..], &payload].concat());
    // The next frame begins in the next buffer.
    bench.arrive(0, &frame(60, 4));
    assert_eq!(bench.driver.used(RX), (4, 72));
    assert_eq!(bench.driver.bytes(places[4] + 12, 60), frame(60, 4));
}

#[test]
fn a_frame_waits_for_the_buffers_that_it_lacks() {
    let mut bench = Bench::ready("wait", 1, !EVENT_IDX);
    let first = bench.give(0, 1000);
    bench.arrive(0, &frame(4000, 5));
    sleep(Duration::from_millis(20));
    assert_eq!(bench.driver.poll_used(RX), None);
    let second = bench.give(1, 2000);
    sleep(Duration::from_millis(20));
    assert_eq!(bench.driver.poll_used(RX), None);
    let third = bench.give(2, 2000);
    let used: Vec<_> = (0..3).map(|_| bench.driver.used(RX)).collect();
    assert_eq!(used, [(0, 1000), (1, 2000), (2, 1012)]);
    let bytes = [(first, 1000), (second, 2000), (third, 1012)]
        .map(|(at, count)| bench.driver.bytes(at, count));
    assert_eq!(bytes.concat()[HEADER..], frame(4000, 5));
}

#[test]
fn a_frame_does_not_wait_forever() {
    let mut bench = Bench::ready("late", 1, !EVENT_IDX);
    bench.give(0, 1000);
    bench.arrive(0, &frame(4000, 5));
    bench.arrive(0, &frame(100, 6));
    bench.expect("a drop", |stats| stats.receive.drops == 1);
    assert_eq!(bench.driver.used(RX), (0, 112));
}

#[test]
fn a_frame_too_long_for_its_buffer_is_dropped() {
    let mut bench = Bench::ready("long", 1, !(EVENT_IDX | feature::MRG_RXBUF));
    let at = bench.give(0, 512);
    // Too long by one byte, much too long, and longer than any frame.
    for bytes in [501, 4000, header::LONGEST_FRAME + 1000] {
        bench.arrive(0, &frame(bytes, 7));
    }
    bench.arrive(0, &frame(500, 8));
    assert_eq!(bench.driver.used(RX), (0, 512));
    assert_eq!(bench.driver.bytes(at + 12, 500), frame(500, 8));
    let stats = bench.handle.stats();
    assert_eq!((stats.receive.drops, stats.receive.frames), (3, 1));
}

#[test]
fn frames_that_were_not_agreed_upon_do_not_reach_the_guest() {
    let mut bench = Bench::ready("agree", 1, !(EVENT_IDX | feature::GUEST_OFFLOADS));
    bench.give(0, 2048);
    let mut header = [0; HEADER];
    (header[0], header[1]) = (1, 1);
    bench.arrive_with(0, header, &frame(100, 1));
    bench.arrive(0, &frame(5, 1));
    bench.arrive(0, &frame(90, 1));
    assert_eq!(bench.driver.used(RX), (0, 102));
    assert_eq!(bench.handle.stats().receive.errors, 2);
    assert_eq!(
        *bench.ports[0].offloads.lock().unwrap(),
        Offloads::default()
    );
}

#[test]
fn a_guest_that_does_not_receive_can_still_send() {
    let mut bench = Bench::ready("starve", 1, !EVENT_IDX);
    for seed in 0..50 {
        bench.arrive(0, &frame(100, seed));
    }
    for seed in 0..200 {
        bench.transmit(&frame(200, seed));
        assert_eq!(bench.sent(0)[HEADER..], frame(200, seed));
    }
    // While it has nothing to do, the worker does nothing.
    let before = cpu_ticks("starve-0");
    sleep(Duration::from_millis(300));
    let ticks = cpu_ticks("starve-0") - before;
    assert!(ticks <= 5, "{ticks} ticks in 300 ms");
    // What waits is received once there are buffers.
    for seed in 0..50 {
        let at = bench.give(seed % 16, 2048);
        assert_eq!(bench.driver.used(RX).1, 112);
        assert_eq!(bench.driver.bytes(at + 12, 100), frame(100, seed as u8));
    }
}

/// Processor time that the thread of this name has used, in clock ticks (10 ms).
fn cpu_ticks(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stat = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok())
        .find(|stat| stat.contains(&format!("({name})")))
        .unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_port_that_takes_nothing_holds_frames_back() {
    let mut bench = Bench::ready("full", 1, !EVENT_IDX);
    // More than the socket holds; the driver has at most 16 on the way.
    let sent = std::thread::scope(|scope| {
        let far = bench.far[0].try_clone().unwrap();
        let reader = scope.spawn(move || {
            sleep(Duration::from_millis(100));
            let (mut bytes, mut frames) = (vec![0; 4096], 0);
            while frames < 1000 {
                match rustix::io::read(&far, &mut bytes) {
                    Ok(count) => {
                        assert_eq!(bytes[HEADER..count], frame(2000, frames as u8));
                        frames += 1;
                    }
                    Err(_) => sleep(Duration::from_millis(1)),
                }
            }
            frames
        });
        for seed in 0..1000 {
            bench.transmit(&frame(2000, seed as u8));
        }
        reader.join().unwrap()
    });
    assert_eq!(sent, 1000);
    assert_eq!(bench.handle.stats().transmit.errors, 0);
}

#[test]
fn a_batch_takes_one_interrupt() {
    let heads: Vec<u16> = (0..10).collect();
    for (mask, event) in [(!EVENT_IDX, 0), (!0, 9), (!0, 3)] {
        let mut bench = Bench::ready("batch", 1, mask);
        bench.driver.set_used_event(TX, event);
        for head in &heads {
            bench.driver.describe(TX, *head, (BUFFERS, 112, 0, 0));
        }
        bench.driver.offer_all(TX, &heads);
        heads
            .iter()
            .for_each(|head| assert_eq!(bench.driver.used(TX), (u32::from(*head), 0)));
        bench.expect("one interrupt", |stats| stats.interrupts == 1);
        // With EVENT_IDX none is due until the event that was asked for.
        bench.driver.offer(TX, 0);
        bench.driver.used(TX);
        sleep(Duration::from_millis(20));
        let expected = if mask & EVENT_IDX == 0 { 2 } else { 1 };
        assert_eq!(bench.handle.stats().interrupts, expected, "event {event}");
    }
}

#[test]
fn frames_with_bad_headers_are_counted_and_nothing_more() {
    let mut bench = Bench::ready("bad", 1, !EVENT_IDX);
    for (header, bytes) in [
        ([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], 100),
        ([0, 9, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 100),
        ([0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 100),
        ([0; 12], 3),
        ([0; 12], 0),
    ] {
        bench.driver.put(BUFFERS, &header);
        bench.driver.send(TX, &[(BUFFERS, 12 + bytes, 0)]);
        bench.driver.used(TX);
    }
    bench.transmit(&frame(60, 9));
    assert_eq!(bench.sent(0)[HEADER..], frame(60, 9));
    let stats = bench.handle.stats().transmit;
    assert_eq!((stats.errors, stats.frames), (5, 1));
}

#[test]
fn malformed_requests_need_a_reset() {
    type Breakage = (&'static str, usize, &'static [(u64, u32, u16)]);
    let breakages: [Breakage; 6] = [
        ("a frame without room for a header", TX, &[(BUFFERS, 11, 0)]),
        (
            "a frame in a writable buffer",
            TX,
            &[(BUFFERS, 60, 0), (BUFFERS, 60, WRITE)],
        ),
        (
            "a receive buffer that is readable",
            RX,
            &[(BUFFERS, 2048, 0)],
        ),
        (
            "a receive buffer without room for a header",
            RX,
            &[(BUFFERS, 11, WRITE)],
        ),
        (
            "a command without room for an answer",
            2,
            &[(BUFFERS, 4, 0)],
        ),
        ("a frame outside RAM", TX, &[(1 << 40, 100, 0)]),
    ];
    for (name, queue, buffers) in breakages {
        let mut bench = Bench::ready("broken", 1, !EVENT_IDX);
        bench.driver.send(queue, buffers);
        bench.driver.expect_needs_reset();
        bench.driver.write(0x70, 0);
        bench.driver.forget_queues();
        bench.set_up(!EVENT_IDX);
        bench.transmit(&frame(64, 1));
        assert_eq!(bench.sent(0)[HEADER..], frame(64, 1), "{name}");
    }
}

/// Sends a command and returns the answer.
fn command(bench: &mut Bench, queue: usize, bytes: &[u8]) -> u8 {
    bench.driver.put(BUFFERS, bytes);
    bench.driver.put(BUFFERS + 64, &[0xff]);
    let (first, rest) = (
        2.min(bytes.len()) as u32,
        bytes.len().saturating_sub(2) as u32,
    );
    bench.driver.send(
        queue,
        &[
            (BUFFERS, first, 0),
            (BUFFERS + 2, rest, 0),
            (BUFFERS + 64, 1, WRITE),
        ],
    );
    assert_eq!(bench.driver.used(queue), (0, 1));
    bench.driver.bytes(BUFFERS + 64, 1)[0]
}

#[test]
fn queue_pairs_are_switched_by_command() {
    let mut bench = Bench::ready("pairs", 2, !EVENT_IDX);
    let attached = |bench: &Bench| bench.ports[1].attached.load(Ordering::SeqCst);
    assert!(!attached(&bench));
    bench
        .driver
        .describe(2, 0, (BUFFERS + 0x10_0000, 2048, WRITE, 0));
    bench.driver.offer(2, 0);
    bench.arrive(1, &frame(70, 1));
    for (bytes, answer) in [
        (&[4, 0, 0, 0][..], 1),
        (&[4, 0, 3, 0], 1),
        (&[4, 0, 2], 1),
        (&[4, 0, 2, 0, 0], 1),
        (&[4, 1, 2, 0], 1),
        (&[9, 0, 2, 0], 1),
        (&[4], 1),
        (&[], 1),
        (&[4, 0, 1, 0], 0),
    ] {
        assert_eq!(command(&mut bench, 4, bytes), answer, "{bytes:?}");
    }
    assert!(!attached(&bench) && bench.driver.poll_used(2).is_none());
    assert_eq!(command(&mut bench, 4, &[4, 0, 2, 0]), 0);
    assert!(attached(&bench));
    assert_eq!(bench.driver.used(2), (0, 82));
    assert_eq!(command(&mut bench, 4, &[4, 0, 1, 0]), 0);
    assert!(!attached(&bench));
    bench.arrive(1, &frame(70, 1));
    bench.driver.offer(2, 0);
    sleep(Duration::from_millis(20));
    assert_eq!(
        bench.driver.poll_used(2),
        None,
        "a pair that is off receives nothing"
    );
}

#[test]
fn offloads_are_switched_by_command() {
    // Without MQ the control queue is the third, however many pairs there could be.
    let mut bench = Bench::ready(
        "offloads",
        2,
        !(EVENT_IDX | feature::MQ | feature::GUEST_TSO6),
    );
    let current = |bench: &Bench| *bench.ports[0].offloads.lock().unwrap();
    assert!(current(&bench).tso4 && !current(&bench).tso6);
    let set = |bits: u64| [&[5, 0][..], &bits.to_le_bytes()].concat();
    assert_eq!(command(&mut bench, 2, &set(feature::GUEST_CSUM)), 0);
    assert_eq!(
        current(&bench),
        Offloads {
            checksum: true,
            ..Offloads::default()
        }
    );
    assert_eq!(command(&mut bench, 2, &set(feature::GUEST_TSO6)), 1);
    assert_eq!(command(&mut bench, 2, &set(1 << 63)), 1);
    assert_eq!(command(&mut bench, 2, &set(0)[..9]), 1);
    assert_eq!(
        command(&mut bench, 2, &[4, 0, 1, 0]),
        1,
        "MQ was not agreed upon"
    );
    assert!(current(&bench).checksum);
    bench.driver.write(0x70, 0);
    assert_eq!(current(&bench), Offloads::default());
}

#[test]
fn limits_hold_and_can_be_lifted() {
    let slow = RateLimit {
        operations: Some(Rate::per_second(1).unwrap()),
        bandwidth: None,
    };
    let mut bench = Bench::ready("slow", 1, !EVENT_IDX);
    bench.handle.set_rate_limit(Direction::Transmit, slow);
    bench.handle.set_rate_limit(Direction::Receive, slow);
    for index in 0..2 {
        bench.give(index, 2048);
    }
    for seed in 0..2 {
        bench.arrive(0, &frame(60, seed));
    }
    bench
        .driver
        .describe(TX, 0, (BUFFERS + 0x30_0000, 72, NEXT, 1));
    bench
        .driver
        .describe(TX, 1, (BUFFERS + 0x30_0000, 60, 0, 0));
    bench.driver.offer_all(TX, &[0, 0]);
    bench.driver.used(TX);
    bench.driver.used(RX);
    bench.expect("both are throttled", |stats| {
        stats.receive.throttled == 1 && stats.transmit.throttled == 1
    });
    assert_eq!(
        (bench.driver.poll_used(TX), bench.driver.poll_used(RX)),
        (None, None)
    );
    bench
        .handle
        .set_rate_limit(Direction::Transmit, RateLimit::NONE);
    bench.driver.used(TX);
    assert_eq!(bench.driver.poll_used(RX), None);
    bench
        .handle
        .set_rate_limit(Direction::Receive, RateLimit::NONE);
    assert_eq!(bench.driver.used(RX), (1, 72));
    assert!(bench.handle.stats().receive.throttled_us > 0);
    assert!(
        serde_json::to_string(&bench.handle.stats())
            .unwrap()
            .contains("\"throttled_us\"")
    );
}
