//! What time does to a connection.

use super::*;
use crate::devices::virtio::Iovecs;
use std::os::unix::net::UnixStream;

const PORTS: Ports = Ports { host: 1, guest: 2 };
const RESET: Option<Next> = Some(Next::Control(Operation::Reset));

fn stream() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours, theirs.into())
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    let now = Instant::now();
    let mut asked = Connection::asked(PORTS, 100, &Header::default(), now);
    let (_program, theirs) = stream();
    let mut offered = Connection::offered(PORTS, 100, theirs, now);
    offered.tell(Operation::Request, 0, 7, now);
    for connection in [&mut asked, &mut offered] {
        assert_eq!(connection.deadline(), Some(now + ANSWER));
        assert_eq!(connection.next(), None);
        connection.expire();
        assert_eq!((connection.next(), connection.deadline()), (RESET, None));
        connection.tell(Operation::Reset, 0, 7, now);
        assert!(connection.is_gone());
    }
}

#[test]
fn an_open_connection_may_be_silent_until_its_end_is_to_be_agreed_upon() {
    let now = Instant::now();
    let mut connection = Connection::asked(PORTS, 100, &Header::default(), now);
    let (program, theirs) = stream();
    connection.connected(theirs);
    connection.tell(Operation::Response, 0, 7, now);
    assert_eq!(connection.deadline(), None);
    drop(program);
    let mut spare = Spare::default();
    let gone = EventFlags::HUP | EventFlags::IN;
    connection.credit.update(10, 0);
    connection.look(gone, &mut spare, now);
    assert_eq!(
        connection.next(),
        Some(Next::Data {
            most: 10,
            buffers: 1
        })
    );
    let mut byte = [0];
    let mut iovecs = Iovecs::reusing(&mut spare);
    iovecs.push(&mut byte);
    assert_eq!(connection.read(&iovecs), Read::Nothing);
    let shutdown = Operation::Shutdown;
    assert_eq!(connection.next(), Some(Next::Control(shutdown)));
    assert_eq!(connection.tell(shutdown, 0, 7, now).flags, 3);
    assert_eq!(connection.deadline(), Some(now + AGREEMENT));
    connection.expire();
    assert_eq!(connection.next(), RESET);
}
