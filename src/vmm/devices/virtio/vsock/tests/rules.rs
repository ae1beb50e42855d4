//! Drivers that break the rules.

use super::*;
use crate::devices::virtio::fake_driver::NEXT;

/// A packet is refused by a reset to whoever sent it.
fn expect_refusal(bench: &mut Bench, header: Header, data: &[u8]) {
    bench.send(header, data);
    let (reset, _) = bench.receive();
    assert_eq!(reset.operation, Operation::Reset as u16, "{header:?}");
    assert_eq!(
        (reset.src_port, reset.dst_port, reset.socket_type),
        (header.dst_port, header.src_port, header.socket_type)
    );
}

#[test]
fn what_belongs_to_no_connection_is_refused() {
    let mut bench = Bench::new();
    let guest = Guest::new(1, 2);
    for operation in [
        Operation::Response,
        Operation::Shutdown,
        Operation::Data,
        Operation::CreditUpdate,
        Operation::CreditRequest,
    ] {
        expect_refusal(&mut bench, guest.header(operation), &[]);
    }
    let request = guest.header(Operation::Request);
    for operation in [0, 8, 0xffff] {
        let header = Header {
            operation,
            ..request
        };
        expect_refusal(&mut bench, header, &[]);
    }
    // Packets, and sockets that nobody knows.
    for socket_type in [0, 2, 0x100] {
        let header = Header {
            socket_type,
            ..request
        };
        expect_refusal(&mut bench, header, &[]);
    }
    for (src_cid, dst_cid) in [
        (7, 0),
        (7, 1),
        (7, 7),
        (7, 8),
        (8, 2),
        (7 | 1 << 32, 2),
        (7, 2 | 1 << 32),
    ] {
        let header = Header {
            src_cid,
            dst_cid,
            ..request
        };
        bench.send(header, &[]);
        // It is the guest's, whoever it says that it is.
        let at = bench.driver.used(RX);
        let bytes = bench
            .driver
            .bytes(BUFFERS + u64::from(at.0) * 4096, HEADER_BYTES);
        let reset = Header::parse(bytes.try_into().unwrap()).unwrap();
        assert_eq!((reset.src_cid, reset.dst_cid), (dst_cid, 7));
        assert_eq!(reset.operation, Operation::Reset as u16);
        bench.give(at.0 as u16);
    }
    expect_refusal(&mut bench, Header { len: 4, ..request }, b"data");
    // And a refusal is not.
    bench.tell(&guest, Operation::Reset, 0);
    bench.expect_nothing();
    assert!(!bench.host.is_asked());
    assert!(!bench.driver.needs_reset());
}

#[test]
fn what_does_not_fit_a_connection_is_its_end() {
    let mut bench = Bench::new();
    let open = |bench: &mut Bench| bench.connect_out(9);
    type Spoil = fn(Header) -> Header;
    let wrong: [(&str, Spoil); 9] = [
        ("a second request", |h| Header { operation: 1, ..h }),
        ("an answer to nothing", |h| Header { operation: 2, ..h }),
        ("an operation of no meaning", |h| Header {
            operation: 9,
            ..h
        }),
        ("a shutdown with data", |h| Header {
            operation: 4,
            len: 4,
            ..h
        }),
        ("credit with data", |h| Header {
            operation: 6,
            len: 4,
            ..h
        }),
        ("a question with data", |h| Header {
            operation: 7,
            len: 4,
            ..h
        }),
        ("more data than there are", |h| Header { len: 5, ..h }),
        ("more data than may be", |h| Header { len: 1 << 20, ..h }),
        ("data without end", |h| Header { len: u32::MAX, ..h }),
    ];
    for (what, change) in wrong {
        let (guest, mut program) = open(&mut bench);
        let header = change(guest.header(Operation::Data));
        bench.send(header, b"1234");
        let (reset, _) = bench.receive();
        assert_eq!(reset.operation, Operation::Reset as u16, "{what}");
        expect_end(&mut program);
        bench.expect_connections(0);
    }
    // The other connections of the guest go on.
    let (guest, mut program) = open(&mut bench);
    bench.data(&guest, b"fine");
    assert_eq!(read(&mut program, 4), b"fine");
    // Who has said that it sends no more does not.
    bench.tell(&guest, Operation::Shutdown, 2);
    bench.data(&guest, b"more");
    bench.expect(Operation::Reset, &guest);
    expect_end(&mut program);
}

#[test]
fn a_guest_answers_requests_and_nothing_else_before_it_is_connected() {
    let mut bench = Bench::new();
    for operation in [
        Operation::Data,
        Operation::Request,
        Operation::CreditUpdate,
        Operation::Shutdown,
    ] {
        // What it has asked itself.
        let guest = Guest::new(1, 2);
        bench.tell(&guest, Operation::Request, 0);
        let id = bench.host.question().id;
        bench.tell(&guest, operation, 0);
        bench.expect(Operation::Reset, &guest);
        expect_end(&mut bench.host.answer(id));
        // What it was asked.
        let mut program = bench.host.connect(3);
        let (header, _) = bench.receive();
        let guest = Guest::new(3, header.src_port);
        bench.tell(&guest, operation, 0);
        bench.expect(Operation::Reset, &guest);
        expect_end(&mut program);
    }
    bench.expect_connections(0);
}

/// What has no whole header has no address to refuse it to.
#[test]
fn a_packet_without_a_header_breaks_its_queue() {
    for buffers in [
        vec![(TX_AT, 43, 0)],
        vec![(TX_AT, 0, 0)],
        vec![(TX_AT, 44, WRITE)],
        vec![(TX_AT, 44, 0), (TX_AT + 64, 16, WRITE)],
    ] {
        let mut bench = Bench::new();
        bench.driver.send(TX, &buffers);
        bench.driver.expect_needs_reset();
        bench.driver.reset();
        bench.driver.start(!(1 << 29));
        (0..RX_BUFFERS).for_each(|index| bench.give(index));
        bench.connect_out(1);
    }
}

#[test]
fn a_receive_buffer_that_is_none_breaks_its_queue() {
    for (index, descriptor) in [
        (BUFFERS, 43, WRITE, 0),
        (BUFFERS, 0, WRITE, 0),
        (BUFFERS, 4096, 0, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let mut bench = Bench::without_buffers();
        bench.driver.describe(RX, index as u16, descriptor);
        bench.driver.offer(RX, index as u16);
        // It is looked at when there is something for it.
        bench.tell(&Guest::new(1, 2), Operation::Data, 0);
        bench.driver.expect_needs_reset();
    }
}

#[test]
fn a_receive_buffer_may_have_room_for_a_header_only() {
    let mut bench = Bench::without_buffers();
    // The first takes no data, and the second some, in two pieces.
    bench.driver.describe(RX, 0, (BUFFERS, 44, WRITE, 0));
    bench
        .driver
        .describe(RX, 1, (BUFFERS + 4096, 20, WRITE | NEXT, 2));
    bench
        .driver
        .describe(RX, 2, (BUFFERS + 4116, 100, WRITE, 0));
    bench.driver.offer(RX, 0);
    let mut program = bench.connect_without_buffer();
    bench.driver.offer(RX, 1);
    write(&mut program, b"some");
    assert_eq!(bench.driver.used(RX), (1, 48));
    assert_eq!(bench.packet(1, 48).1, b"some");
    // A whole read finds nothing but such.
    write(&mut program, b"more");
    bench.driver.offer(RX, 0);
    bench.driver.expect_needs_reset();
}

impl Bench {
    /// Connects by the buffer that is there, without giving it again.
    fn connect_without_buffer(&mut self) -> UnixStream {
        let guest = Guest::new(1, 2);
        self.tell(&guest, Operation::Request, 0);
        let id = self.host.question().id;
        let program = self.host.answer(id);
        assert_eq!(self.driver.used(RX).1, HEADER_BYTES as u32);
        program
    }
}
