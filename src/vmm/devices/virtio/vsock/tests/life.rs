//! Resets, pauses and ends while there is traffic.

use super::*;
use crate::devices::virtio::Patience;
use crate::devices::virtio::vsock::FromHost;

#[test]
fn a_reset_ends_all_connections_and_the_next_driver_begins_anew() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_in(1);
    let (_, mut other) = bench.connect_out(2);
    write(&mut program, &numbers(50_000));
    bench.data(&guest, b"hello");
    // The host has not answered this one.
    bench.tell(&Guest::new(5, 6), Operation::Request, 0);
    let late = bench.host.question().id;
    bench.driver.reset();
    assert_eq!(read(&mut program, 5), b"hello");
    // Who has sent what nobody took is told so by its kernel.
    let ended = std::io::Read::read(&mut program, &mut [0]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    expect_end(&mut other);
    bench.expect_connections(0);
    // What a program wants meanwhile is kept for the next driver; what is late is nobody's.
    let mut meanwhile = bench.host.connect(80);
    let mut answer = bench.host.answer(late);
    bench.driver.forget_queues();
    bench.driver.start(!(1 << 29));
    (0..RX_BUFFERS).for_each(|index| bench.give(index));
    let (header, _) = bench.receive();
    assert_eq!((header.operation, header.dst_port), (1, 80));
    assert_ne!(
        header.src_port, guest.to,
        "a port is not used again at once"
    );
    expect_end(&mut answer);
    let guest = Guest::new(80, header.src_port);
    bench.tell(&guest, Operation::Response, 0);
    assert!(read(&mut meanwhile, 3) == b"OK ");
}

#[test]
fn nothing_moves_in_a_pause() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    bench.driver.transport.session().pause();
    assert!(
        bench
            .driver
            .transport
            .session()
            .is_still(Patience::of(LONG))
    );
    write(&mut program, b"meanwhile");
    let asleep = bench.host.connect(5);
    bench.expect_nothing();
    bench.driver.transport.session().resume();
    let (mut said, mut asked) = (Vec::new(), false);
    while !(asked && said == b"meanwhile") {
        let (header, data) = bench.receive();
        said.extend(data);
        asked |= header.operation == Operation::Request as u16;
    }
    bench.data(&guest, b"awake");
    assert_eq!(read(&mut program, 5), b"awake");
    drop(asleep);
}

#[test]
fn pauses_amid_traffic_lose_nothing() {
    let mut bench = Bench::new();
    let (mut guest, mut program) = bench.connect_out(1);
    let mut writer = program.try_clone().unwrap();
    let writing = std::thread::spawn(move || write(&mut writer, &numbers(500_000)));
    let mut came = Vec::new();
    let mut last = 0;
    while came.len() < 500_000 {
        let (header, data) = bench.receive();
        if header.operation == Operation::Data as u16 {
            came.extend(data);
        }
        if came.len() - last > 20_000 {
            last = came.len();
            bench.driver.transport.session().pause();
            assert!(
                bench
                    .driver
                    .transport
                    .session()
                    .is_still(Patience::of(LONG))
            );
            bench.driver.transport.session().resume();
            guest.forwarded = last as u32;
            bench.data(&guest, b"got it");
            assert_eq!(read(&mut program, 6), b"got it");
        }
    }
    writing.join().unwrap();
    assert_eq!(came, numbers(500_000));
}

#[test]
fn a_transport_reset_is_told_when_the_driver_takes_it() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    bench.handle.reset_transport();
    expect_end(&mut program);
    bench.expect_connections(0);
    bench.expect_nothing();
    // What the guest says of a connection that it thinks it has is refused.
    bench.data(&guest, b"hello?");
    bench.expect(Operation::Reset, &guest);
    let at = BUFFERS + 0x20_0000;
    bench.driver.put(at, &[0xff; 8]);
    bench.driver.send(EVENTS, &[(at, 8, WRITE)]);
    assert_eq!(bench.driver.used(EVENTS), (0, 4));
    assert_eq!(
        bench.driver.bytes(at, 8),
        [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
    );
    // Once, and then there is another life.
    bench.driver.offer(EVENTS, 0);
    bench.connect_in(5);
    assert_eq!(bench.driver.poll_used(EVENTS), None);
    bench.handle.reset_transport();
    assert_eq!(bench.driver.used(EVENTS), (0, 4));
}

/// What is connected while a driver gives up its connections would be given up with them.
#[test]
fn nobody_is_connected_before_the_driver_has_done_with_a_reset() {
    let mut bench = Bench::new();
    let (_, mut program) = bench.connect_out(1);
    bench
        .driver
        .send(EVENTS, &[(BUFFERS + 0x20_0000, 8, WRITE)]);
    bench.handle.reset_transport();
    expect_end(&mut program);
    assert_eq!(bench.driver.used(EVENTS), (0, 4));
    let _program = bench.host.connect(5);
    bench.expect_nothing();
    bench.driver.offer(EVENTS, 0);
    let (header, _) = bench.receive();
    assert_eq!(header.operation, Operation::Request as u16);
    // A driver that gives no buffer keeps nobody waiting for long.
    bench.handle.reset_transport();
    assert_eq!(bench.driver.used(EVENTS), (0, 4));
    let _program = bench.host.connect(6);
    let (header, _) = bench.receive();
    assert_eq!(header.operation, Operation::Request as u16);
}

#[test]
fn a_host_that_is_gone_refuses() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    bench.host.leave();
    bench.host.say(FromHost::Nothing);
    let other = Guest::new(1, 2);
    let deadline = Instant::now() + LONG;
    loop {
        bench.tell(&other, Operation::Request, 0);
        if !bench.host.is_asked() {
            break;
        }
        assert!(Instant::now() < deadline);
        let id = bench.host.question().id;
        bench.host.say(FromHost::Refused { id });
    }
    while bench.receive().0.dst_port != other.from {}
    // What is connected stays so.
    bench.data(&guest, b"here");
    assert_eq!(read(&mut program, 4), b"here");
}

#[test]
fn a_device_without_some_of_its_queues_serves_the_others() {
    let mut bench = Bench::without_buffers();
    bench.driver.reset();
    bench.driver.forget_queues();
    assert!(bench.driver.negotiate(!(1 << 29)));
    bench.driver.set_up_queue(TX);
    bench.driver.write(0x70, 15);
    bench.tell(&Guest::new(1, 2), Operation::Data, 0);
    bench.handle.reset_transport();
    bench.tell(&Guest::new(1, 2), Operation::Request, 0);
    bench.host.question();
    assert!(!bench.driver.needs_reset());
}
