//! The device with a metadata service beside its network.

use super::*;
use crate::config::Metadata;
use std::net::Ipv4Addr;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A bench whose first far end is the network, and the second the service.
fn with_service(name: &str) -> Bench {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let ((near, far), (ours, service)) = (pair(), pair());
    let port = Arc::new(SocketPort {
        socket: near,
        offloads: Mutex::default(),
        attached: AtomicBool::new(false),
    });
    let params = NetParams {
        name: name.into(),
        mac: "02:6b:00:00:00:01".parse().unwrap(),
        mtu: None,
        receive_limit: RateLimit::NONE,
        transmit_limit: RateLimit::NONE,
        poll: Duration::ZERO,
        vhost: false,
    };
    let both = WithMetadata::new(port.clone(), Metadata::new(ADDRESS, ours));
    let (device, handle) = NetDevice::new(params, vec![Arc::new(both)], Vec::new()).unwrap();
    let mut bench = Bench {
        driver: FakeDriver::new(Box::new(device)),
        handle,
        ports: vec![port],
        far: vec![far, service],
    };
    // One pair of queues, whatever is behind it.
    assert!(bench.driver.negotiate(!(EVENT_IDX | feature::MQ) | 1 << 32));
    (0..3).for_each(|queue| bench.driver.set_up_queue(queue));
    bench.driver.write(0x70, 15);
    bench
}

/// A question of ARP who has an address.
fn question(address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0x6b, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0x6b, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    frame.extend(address.octets());
    frame
}

#[test]
fn frames_for_the_service_go_there_and_no_others() {
    let mut bench = with_service("apart");
    let other = question(Ipv4Addr::new(169, 254, 169, 253));
    for frame in [frame(60, 1), question(ADDRESS), other.clone()] {
        bench.transmit(&frame);
    }
    assert_eq!(bench.sent(1)[HEADER..], question(ADDRESS));
    assert_eq!(bench.sent(0)[HEADER..], frame(60, 1));
    assert_eq!(bench.sent(0)[HEADER..], other);
}

#[test]
fn the_guest_receives_from_both_by_turns() {
    let mut bench = with_service("turns");
    for count in 0..8 {
        bench.arrive(0, &frame(60, count));
        bench.arrive(1, &frame(60, 100 + count));
    }
    let places: Vec<u64> = (0..8).map(|index| bench.give(index, 2000)).collect();
    bench.expect("all come", |stats| stats.receive.frames == 8);
    let first = places
        .iter()
        .map(|at| bench.driver.bytes(at + HEADER as u64, 60));
    let services = first.filter(|bytes| (100..108).any(|count| *bytes == frame(60, count)));
    assert_eq!(services.count(), 4);
}

#[test]
fn a_service_that_has_ended_or_stands_still_takes_nothing_with_it() {
    let mut bench = with_service("ended");
    let mut sent = 0;
    // Nobody takes them, and there is room for some.
    while bench.handle.stats().transmit.errors == 0 {
        bench.transmit(&question(ADDRESS));
        sent += 1;
        assert!(sent < 10_000, "there is room without end");
    }
    bench.transmit(&frame(60, 1));
    assert_eq!(bench.sent(0)[HEADER..], frame(60, 1));
    bench.far.truncate(1);
    let at = bench.give(0, 2000);
    bench.arrive(0, &frame(60, 2));
    bench.driver.used(RX);
    assert_eq!(bench.driver.bytes(at + HEADER as u64, 60), frame(60, 2));
    bench.transmit(&question(ADDRESS));
    bench.transmit(&frame(60, 3));
    assert_eq!(bench.sent(0)[HEADER..], frame(60, 3));
    assert_eq!(bench.handle.stats().receive.errors, 0);
}
