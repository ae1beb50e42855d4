//! Connections by the rules, from their beginning to their end.

use super::*;
use crate::devices::virtio::vsock::FromHost;
use std::net::Shutdown;

/// Flags of a shutdown.
const RECEIVE: u32 = 1;
const SEND: u32 = 2;

#[test]
fn the_configuration_is_that_of_the_specification() {
    let mut bench = Bench::without_buffers();
    assert_eq!(
        bench.driver.config(0, 12),
        [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(bench.driver.config(4, 4), [0; 4]);
    assert_eq!(bench.driver.offered() & 7, 1);
    assert_eq!(bench.driver.read(0x8), 19);
}

#[test]
fn a_guest_talks_to_a_program_of_the_host() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1024);
    bench.data(&guest, b"hello");
    assert_eq!(read(&mut program, 5), b"hello");
    write(&mut program, b"and you");
    let (header, data) = bench.receive();
    assert_eq!(data, b"and you");
    assert_eq!(header.operation, Operation::Data as u16);
    assert_eq!(header.fwd_cnt, 5, "{header:?}");
    assert!(header.buf_alloc >= 64 << 10, "{header:?}");
    bench.expect_stats("what was said is counted", |stats| {
        (stats.bytes_from_guest, stats.bytes_to_guest) == (5, 7)
            && (stats.packets_from_guest, stats.packets_to_guest) == (2, 2)
    });
}

#[test]
fn a_program_of_the_host_talks_to_a_guest() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_in(80);
    assert!((1 << 30..1 << 31).contains(&guest.to));
    let all = numbers(50_000);
    write(&mut program, &all);
    let mut came = Vec::new();
    while came.len() < all.len() {
        let (header, data) = bench.receive();
        assert_eq!(header.operation, Operation::Data as u16);
        came.extend(data);
    }
    assert_eq!(came, all);
    bench.data(&guest, &all);
    assert_eq!(read(&mut program, all.len()), all);
}

/// Linux sends what it has not copied in as many pieces as it comes in.
#[test]
fn data_come_in_any_number_of_pieces() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    let header = Header {
        len: 1000,
        ..guest.header(Operation::Data)
    };
    let bytes = [&header.to_bytes().unwrap()[..], &numbers(1000)].concat();
    bench.driver.put(TX_AT, &bytes);
    let mut pieces = vec![(TX_AT, 40, 0), (TX_AT + 40, 5, 0)];
    pieces.extend((0..10).map(|index| (TX_AT + 45 + index * 100, 100, 0)));
    bench.driver.send(TX, &pieces);
    bench.driver.used(TX);
    assert_eq!(read(&mut program, 1000), numbers(1000));
}

#[test]
fn a_program_that_has_sent_all_still_hears_the_guest() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    write(&mut program, b"question");
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.receive().1, b"question");
    assert_eq!(bench.expect(Operation::Shutdown, &guest).flags, SEND);
    bench.data(&guest, b"answer");
    assert_eq!(read(&mut program, 6), b"answer");
    bench.tell(&guest, Operation::Shutdown, RECEIVE | SEND);
    bench.expect(Operation::Reset, &guest);
    expect_end(&mut program);
    bench.expect_connections(0);
}

#[test]
fn a_guest_that_has_sent_all_still_hears_the_program() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_in(1);
    bench.data(&guest, b"question");
    bench.tell(&guest, Operation::Shutdown, SEND);
    assert_eq!(read(&mut program, 8), b"question");
    expect_end(&mut program);
    write(&mut program, b"answer");
    assert_eq!(bench.receive().1, b"answer");
    drop(program);
    assert_eq!(bench.expect(Operation::Shutdown, &guest).flags & SEND, SEND);
    // What was said before holds, whatever is said later.
    bench.tell(&guest, Operation::Shutdown, RECEIVE);
    bench.expect(Operation::Reset, &guest);
    bench.expect_connections(0);
}

#[test]
fn a_guest_that_takes_nothing_more_is_told_nothing_more() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    bench.tell(&guest, Operation::Shutdown, RECEIVE);
    let error = program.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    bench.data(&guest, b"more");
    assert_eq!(read(&mut program, 4), b"more");
    bench.expect_nothing();
}

#[test]
fn a_program_that_goes_leaves_what_it_has_sent() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    write(&mut program, b"last words");
    drop(program);
    let (mut said, mut flags) = (Vec::new(), 0);
    while flags != RECEIVE | SEND {
        let (header, data) = bench.receive();
        said.extend(data);
        flags = header.flags;
    }
    assert_eq!(said, b"last words");
    // Linux answers so; what it has sent meanwhile is lost, which it was told.
    bench.data(&guest, b"too late");
    bench.tell(&guest, Operation::Reset, 0);
    bench.expect_connections(0);
    bench.expect_nothing();
}

#[test]
fn a_guest_that_goes_leaves_what_it_has_sent() {
    let mut bench = Bench::new();
    for reset in [false, true] {
        let (guest, mut program) = bench.connect_out(1);
        // More than the socket takes.
        let all = numbers(60_000);
        let mut sent = 0;
        while bench.handle.stats().bytes_from_guest < 400_000 + u64::from(reset) * 400_000 {
            bench.data(&guest, &all);
            sent += all.len();
        }
        match reset {
            true => bench.tell(&guest, Operation::Reset, 0),
            false => {
                bench.tell(&guest, Operation::Shutdown, RECEIVE | SEND);
                // Its VM may end with the answer, and what has not been taken with the VM.
                std::thread::sleep(Duration::from_millis(20));
                while let Some((head, written)) = bench.driver.poll_used(RX) {
                    let said = bench.packet(head, written).0.operation;
                    assert_eq!(said, Operation::CreditUpdate as u16);
                    bench.give(head as u16);
                }
            }
        }
        let mut came = vec![0; sent];
        program.read_exact(&mut came).unwrap();
        assert!(came.chunks(all.len()).all(|chunk| chunk == all));
        if !reset {
            // The last may be a credit update.
            while bench.receive().0.operation != Operation::Reset as u16 {}
        }
        expect_end(&mut program);
        bench.expect_connections(0);
    }
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let mut bench = Bench::new();
    let guest = Guest::new(1, 2);
    bench.tell(&guest, Operation::Request, 0);
    let id = bench.host.question().id;
    bench.host.say(FromHost::Refused { id });
    bench.expect(Operation::Reset, &guest);
    let mut program = bench.host.connect(77);
    let (header, _) = bench.receive();
    bench.tell(&Guest::new(77, header.src_port), Operation::Reset, 0);
    expect_end(&mut program);
    bench.expect_connections(0);
}

#[test]
fn who_gives_up_before_it_is_answered_is_forgotten() {
    let mut bench = Bench::new();
    // The program: the guest hears of the request, and of its end.
    let program = bench.host.connect(77);
    let (header, _) = bench.receive();
    let guest = Guest::new(77, header.src_port);
    drop(program);
    bench.expect(Operation::Reset, &guest);
    // The guest: the host's answer is nobody's.
    let guest = Guest::new(5, 6);
    bench.tell(&guest, Operation::Request, 0);
    let id = bench.host.question().id;
    bench.tell(&guest, Operation::Reset, 0);
    expect_end(&mut bench.host.answer(id));
    bench.host.say(FromHost::Refused { id });
    bench.host.say(FromHost::Nothing);
    bench.expect_connections(0);
    bench.expect_nothing();
    bench.connect_out(6);
}
