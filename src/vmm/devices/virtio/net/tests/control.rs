//! Commands, limits, and what no driver should do.

use super::*;
use crate::config::Rate;
use crate::devices::virtio::fake_driver::{BUFFERS, NEXT, WRITE};

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
        bench.driver.reset();
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
    bench.driver.reset();
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
