//! Frames from the guest.

use super::*;
use crate::devices::virtio::fake_driver::BUFFERS;

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

/// Of frames one soon after another: between them it looks for the next, and then sleeps all the same.
#[test]
fn it_looks_for_the_next_frame_as_long_as_that_pays() {
    let mut bench = Bench::ready("looks", 1, !EVENT_IDX);
    bench.driver.put(BUFFERS, &[0; HEADER]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut sent = 0;
    while bench.handle.stats().poll_us == 0 {
        assert!(Instant::now() < deadline, "{:?}", bench.handle.stats());
        let frame = [(BUFFERS, HEADER as u32, 0), (BUFFERS + 0x1000, 60, 0)];
        bench.driver.send(TX, &frame);
        assert_eq!(bench.driver.used(TX), (0, 0));
        bench.sent(0);
        sent += 1;
    }
    // Once more, when it has long been asleep.
    sleep(Duration::from_millis(20));
    bench.driver.send(TX, &[(BUFFERS, HEADER as u32 + 60, 0)]);
    assert_eq!(bench.driver.used(TX), (0, 0));
    assert_eq!(bench.handle.stats().transmit.frames, sent + 1);
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
