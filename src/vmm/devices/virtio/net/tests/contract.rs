//! What every device keeps to, in both directions.

use super::*;
use crate::devices::virtio::contract::{Subject, contract_tests, place};

/// Frames from the guest.
struct Sending(Bench);

/// Frames to the guest.
struct Receiving(Bench);

fn bench() -> Bench {
    let mut bench = Bench::new("contract", 1);
    bench.driver.start(!EVENT_IDX);
    bench
}

impl Subject for Sending {
    const QUEUE: usize = TX;
    const DESCRIPTORS: u16 = 1;

    fn ready() -> Self {
        Self(bench())
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let bytes = [&[0; HEADER][..], &frame(100, number as u8)].concat();
        let descriptor = (place(number), bytes.len() as u32, 0, 0);
        self.0.driver.put(place(number), &bytes);
        self.0.driver.describe(TX, head, descriptor);
    }

    fn check(&mut self, number: u16, written: u32) {
        assert_eq!(written, 0);
        assert_eq!(self.0.sent(0)[HEADER..], frame(100, number as u8));
    }

    fn start(&mut self) {
        // What was sent before the reset.
        while rustix::io::read(&self.0.far[0], &mut [0; 4096]).is_ok() {}
        self.0.driver.forget_queues();
        self.0.driver.start(!EVENT_IDX);
    }
}

impl Subject for Receiving {
    const QUEUE: usize = RX;
    const DESCRIPTORS: u16 = 1;

    fn ready() -> Self {
        Self(bench())
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let descriptor = (place(number), 2048, WRITE, 0);
        self.0.driver.describe(RX, head, descriptor);
    }

    fn prompt(&mut self, requests: u16) {
        (0..requests).for_each(|number| self.0.arrive(0, &frame(100, number as u8)));
    }

    fn check(&mut self, number: u16, written: u32) {
        assert_eq!(written, 112);
        let bytes = self.0.driver.bytes(place(number) + HEADER as u64, 100);
        assert_eq!(bytes, frame(100, number as u8));
    }
}

contract_tests!(sending, super::Sending);
contract_tests!(receiving, super::Receiving);

/// A frame that is half in the guest's buffers is received whole after a sleep, by the same pairs and offloads.
#[test]
fn a_frame_that_waits_outlives_a_sleep() {
    let mut bench = Bench::ready("sleeper", 2, !EVENT_IDX);
    let first = bench.give(0, 1000);
    bench.arrive(0, &frame(4000, 5));
    sleep(Duration::from_millis(20));
    let session = bench.driver.transport.session();
    assert!(session.sleep(Instant::now() + Duration::from_secs(10)));
    let DeviceState::Net(state) = &session.halted().unwrap().state else {
        panic!("another type of device");
    };
    assert_eq!((state.pairs, state.frames.len()), (1, 2));
    let kept = state.frames[0].as_ref().unwrap();
    assert_eq!(kept[HEADER..], frame(4000, 5));
    // Another would find nothing of it in memory.
    bench.driver.put(first, &[0; 1000]);
    bench.driver.transport.session().wake();
    let second = bench.give(1, 2000);
    let third = bench.give(2, 2000);
    let used: Vec<_> = (0..3).map(|_| bench.driver.used(RX)).collect();
    assert_eq!(used, [(0, 1000), (1, 2000), (2, 1012)]);
    let bytes = [(first, 1000), (second, 2000), (third, 1012)]
        .map(|(at, count)| bench.driver.bytes(at, count));
    assert_eq!(bytes.concat()[HEADER..], frame(4000, 5));
}
