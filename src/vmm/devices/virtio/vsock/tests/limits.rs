//! What a guest, or a program of the host, can make the device hold, and whom that holds up.

use super::*;
use crate::devices::virtio::vsock::budget::MOST_CONNECTIONS;

#[test]
fn a_guest_is_sent_no_more_than_it_has_room_for() {
    let mut bench = Bench::new();
    let (mut guest, mut program) = bench.connect_out(1);
    write(&mut program, &numbers(100_000));
    let mut came = Vec::new();
    let take = |bench: &mut Bench, came: &mut Vec<u8>, until: u32| {
        while came.len() < until as usize {
            let (header, data) = bench.receive();
            assert_eq!(header.operation, Operation::Data as u16);
            came.extend(data);
        }
        assert_eq!(came.len(), until as usize);
    };
    take(&mut bench, &mut came, ROOM);
    // It is asked for more, once.
    bench.expect(Operation::CreditRequest, &guest);
    bench.expect_nothing();
    guest.forwarded = 1000;
    bench.tell(&guest, Operation::CreditUpdate, 0);
    take(&mut bench, &mut came, ROOM + 1000);
    bench.expect(Operation::CreditRequest, &guest);
    // It cannot have taken more than it was sent: that says nothing.
    guest.forwarded = ROOM + 1001;
    bench.tell(&guest, Operation::CreditUpdate, 0);
    guest.forwarded = u32::MAX;
    bench.tell(&guest, Operation::CreditUpdate, 0);
    bench.expect_nothing();
    guest.forwarded = ROOM + 1000;
    bench.tell(&guest, Operation::CreditUpdate, 0);
    take(&mut bench, &mut came, 100_000);
    assert_eq!(came, numbers(100_000));
}

#[test]
fn a_guest_that_asks_is_told_its_credit() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    bench.data(&guest, &[1; 100]);
    bench.tell(&guest, Operation::CreditRequest, 0);
    let header = bench.expect(Operation::CreditUpdate, &guest);
    assert_eq!(header.fwd_cnt, 100);
    assert_eq!(read(&mut program, 100), [1; 100]);
}

/// Sends until the guest has no credit left; returns how much it was.
fn fill(bench: &mut Bench, guest: &Guest) -> usize {
    bench.tell(guest, Operation::CreditRequest, 0);
    let mut header = bench.receive().0;
    let portion = numbers(32 << 10);
    let mut sent = 0u32;
    loop {
        let flying = sent.wrapping_sub(header.fwd_cnt);
        let room = (header.buf_alloc - flying) as usize;
        if room == 0 {
            return sent as usize;
        }
        let data = &portion[..room.min(portion.len())];
        bench.data(guest, data);
        sent += data.len() as u32;
        bench.tell(guest, Operation::CreditRequest, 0);
        header = bench.receive().0;
        if header.operation != Operation::CreditUpdate as u16 {
            panic!("{header:?}");
        }
        while let Some((head, written)) = bench.driver.poll_used(RX) {
            header = bench.packet(head, written).0;
            bench.give(head as u16);
        }
    }
}

/// A program that does not take what it is sent holds up nobody but its own connection.
#[test]
fn a_program_that_does_not_read_holds_up_nobody_else() {
    let mut bench = Bench::new();
    let (slow_guest, mut slow) = bench.connect_out(1);
    let (guest, mut program) = bench.connect_out(2);
    let sent = fill(&mut bench, &slow_guest);
    assert!(sent >= 256 << 10, "{sent}");
    bench.data(&guest, b"quick");
    assert_eq!(read(&mut program, 5), b"quick");
    // Credit comes back as it reads, and all is in order.
    let came = read(&mut slow, sent);
    assert!(
        came.chunks(32 << 10)
            .all(|chunk| *chunk == numbers(chunk.len()))
    );
    let header = bench.expect(Operation::CreditUpdate, &slow_guest);
    assert!(header.fwd_cnt > 0);
}

#[test]
fn data_beyond_the_credit_are_the_end() {
    let mut bench = Bench::new();
    let (guest, mut program) = bench.connect_out(1);
    let sent = fill(&mut bench, &guest);
    bench.data(&guest, b"x");
    bench.expect(Operation::Reset, &guest);
    // What came by then may be on its way, and no more.
    let mut came = Vec::new();
    program.read_to_end(&mut came).unwrap();
    assert!(came.len() < sent);
    bench.expect_connections(0);
}

#[test]
fn there_can_be_a_thousand_connections_and_no_more() {
    let mut bench = Bench::new();
    let mut open = Vec::new();
    for number in 0..MOST_CONNECTIONS as u32 {
        match number % 2 {
            0 => open.push(bench.connect_out(number)),
            _ => open.push(bench.connect_in(number)),
        }
    }
    let guest = Guest::new(1, 1);
    bench.tell(&guest, Operation::Request, 0);
    bench.expect(Operation::Reset, &guest);
    expect_end(&mut bench.host.connect(1));
    for (number, (guest, program)) in open.iter_mut().enumerate() {
        let text = format!("number {number}");
        bench.data(guest, text.as_bytes());
        assert_eq!(read(program, text.len()), text.as_bytes());
        write(program, text.as_bytes());
        assert_eq!(bench.receive().1, text.as_bytes());
    }
    // One goes, and another can come.
    let (guest, program) = open.swap_remove(500);
    drop(program);
    while bench.receive().0.flags != 3 {}
    bench.tell(&guest, Operation::Reset, 0);
    bench.connect_out(1);
}

/// A guest that does not fetch its refusals is not heard any more, until it does.
#[test]
fn refusals_that_are_not_fetched_are_bounded() {
    let mut bench = Bench::without_buffers();
    let wrong = Guest::new(1, 2).header(Operation::Data);
    bench.driver.put(TX_AT, &wrong.to_bytes().unwrap());
    bench
        .driver
        .describe(TX, 0, (TX_AT, HEADER_BYTES as u32, 0, 0));
    let mut sent = 0;
    let mut waits = Instant::now();
    bench.driver.offer(TX, 0);
    while waits.elapsed() < Duration::from_millis(300) {
        if bench.driver.poll_used(TX).is_some() {
            (sent, waits) = (sent + 1, Instant::now());
            bench.driver.offer(TX, 0);
        }
    }
    assert_eq!(sent, 256);
    (0..RX_BUFFERS).for_each(|index| bench.give(index));
    for _ in 0..300 {
        assert_eq!(bench.receive().0.operation, Operation::Reset as u16);
        if bench.driver.poll_used(TX).is_some() {
            bench.driver.offer(TX, 0);
        }
    }
}
