//! Frames for the guest.

use super::*;
use crate::devices::virtio::fake_driver::{INDIRECT, NEXT};

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

/// Buffers in more pieces than one call takes, taken while a frame waited for them: the next one is whole as well.
#[test]
fn a_frame_is_whole_in_however_many_pieces() {
    const PIECES: u16 = 256;
    let mut bench = Bench::ready("pieces", 1, !EVENT_IDX);
    let first = bench.give(0, 1000);
    bench.arrive(0, &frame(1100, 5));
    sleep(Duration::from_millis(20));
    let table = |index: u16| BUFFERS + 0x20_0000 + 0x1000 * u64::from(index);
    let data = |index: u16| BUFFERS + 0x30_0000 + 0x1000 * u64::from(index);
    for index in 1..16 {
        for piece in 0..PIECES {
            let next = if piece + 1 < PIECES { NEXT } else { 0 };
            let at = data(index) + 2 * u64::from(piece);
            let descriptor = (at, 1, WRITE | next, piece + 1);
            bench.driver.describe_at(table(index), piece, descriptor);
        }
        let indirect = (table(index), 16 * u32::from(PIECES), INDIRECT, 0);
        bench.driver.describe(RX, index, indirect);
    }
    bench.driver.offer_all(RX, &(1..16).collect::<Vec<_>>());
    let contents = |bench: &Bench, index: u16, bytes: usize| -> Vec<u8> {
        let spread = bench.driver.bytes(data(index), 2 * bytes);
        spread.into_iter().step_by(2).collect()
    };
    assert_eq!(bench.driver.used(RX), (0, 1000));
    assert_eq!(bench.driver.used(RX), (1, 112));
    let bytes = [bench.driver.bytes(first, 1000), contents(&bench, 1, 112)].concat();
    assert_eq!(bytes[HEADER..], frame(1100, 5));
    bench.arrive(0, &frame(3000, 6));
    let (mut bytes, mut index) = (Vec::new(), 2);
    while bytes.len() < HEADER + 3000 {
        let (head, count) = bench.driver.used(RX);
        assert_eq!(head, u32::from(index));
        bytes.extend(contents(&bench, index, count as usize));
        index += 1;
    }
    assert_eq!(bytes[HEADER..], frame(3000, 6));
    assert_eq!(bytes[10], 12);
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
