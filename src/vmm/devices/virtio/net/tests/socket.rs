//! The device on a socket whose other end another process has.

use super::*;
use kvmlet_sys::frames::FrameSocket;

/// A bench whose only port is such a socket.
fn on_socket(name: &str) -> Bench {
    let (near, far) = FrameSocket::pair().unwrap();
    let params = NetParams {
        name: name.into(),
        mac: "02:6b:00:00:00:01".parse().unwrap(),
        mtu: None,
        receive_limit: RateLimit::NONE,
        transmit_limit: RateLimit::NONE,
        poll: Duration::ZERO,
        vhost: false,
    };
    let (device, handle) = NetDevice::new(params, vec![Arc::new(near)], Vec::new()).unwrap();
    Bench {
        driver: FakeDriver::new(Box::new(device)),
        handle,
        ports: Vec::new(),
        far: vec![far.as_fd().try_clone_to_owned().unwrap()],
    }
}

#[test]
fn only_complete_frames_go_through_a_socket() {
    let mut bench = on_socket("whole");
    let offered = bench.driver.offered();
    assert_eq!(offered & feature::LEFT_UNDONE, 0);
    assert_ne!(offered & feature::GUEST_CSUM, 0);
    bench.set_up(!EVENT_IDX);
    bench.transmit(&frame(60_000, 3));
    assert_eq!(bench.sent(0)[HEADER..], frame(60_000, 3));
    // A checksum that is left to others is nobody's to fill in.
    let at = BUFFERS + 0x30_0000;
    bench
        .driver
        .put(at, &[1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    bench.driver.send(TX, &[(at, 112, 0)]);
    bench.driver.used(TX);
    bench.expect("it is not sent", |stats| stats.transmit.errors == 1);
    let at = bench.give(0, 2000);
    // Checked, which the guest need not do again.
    bench.arrive_with(0, [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &frame(100, 4));
    bench.driver.used(RX);
    assert_eq!(bench.driver.bytes(at, 1), [2]);
    assert_eq!(bench.driver.bytes(at + HEADER as u64, 100), frame(100, 4));
}

#[test]
fn the_end_of_the_other_process_is_told_once_and_waited_for_no_more() {
    let mut bench = on_socket("over");
    bench.set_up(!EVENT_IDX);
    bench.give(0, 2000);
    bench.far.clear();
    bench.expect("its end is seen", |stats| stats.receive.errors == 1);
    for number in 1..=3 {
        bench.transmit(&frame(60, 1));
        bench.expect("nothing is sent", |stats| stats.transmit.errors == number);
    }
    assert_eq!(bench.handle.stats().receive.errors, 1);
    assert!(!bench.driver.needs_reset());
}
