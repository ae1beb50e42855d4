//! How long connections keep their seats.

use super::super::Seats;
use super::super::source::Users;
use super::*;
use rustix::event::epoll;
use std::io::Write;
use std::net::Shutdown;

/// A relay to a server that accepts whoever comes and reads nothing, with the address that clients come to.
fn relay() -> (Context, TcpRelay, TcpListener, SocketAddr) {
    let context = Context {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        now: Instant::now(),
        buffer: vec![0; 1024],
        users: Users::new(),
        servers: None,
    };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let offer = vec![(listener, Target::Guest(server.local_addr().unwrap()))];
    let kinds = (Kind::PublishedListener, Kind::Published);
    let relay = TcpRelay::new(
        &context,
        kinds,
        Rules::published(Seats::range(true, true)[1]),
        offer,
    )
    .unwrap();
    (context, relay, server, address)
}

/// Does what the events of a moment would have done, this long after the last.
fn pass(relay: &mut TcpRelay, context: &mut Context, time: Duration) {
    context.now += time;
    relay.accept_later(0);
    relay.go_on(context);
    for number in relay.connections.keys().copied().collect::<Vec<_>>() {
        relay.serve(number, context);
    }
}

#[test]
fn who_has_closed_does_not_keep_a_seat_for_long() {
    let (mut context, mut relay, server, address) = relay();
    let mut gone = TcpStream::connect(address).unwrap();
    gone.write_all(b"to whom it may concern").unwrap();
    let waits = TcpStream::connect(address).unwrap();
    waits.shutdown(Shutdown::Write).unwrap();
    drop(gone);
    pass(&mut relay, &mut context, Duration::ZERO);
    let _served = [server.accept().unwrap(), server.accept().unwrap()];
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        pass(&mut relay, &mut context, Duration::ZERO);
    }
    assert_eq!(relay.connections.len(), 2);
    pass(&mut relay, &mut context, Duration::from_secs(29));
    assert_eq!(relay.connections.len(), 2);
    // Who has said all and waits for the answer may have to wait.
    pass(&mut relay, &mut context, Duration::from_secs(15));
    assert_eq!(relay.connections.len(), 1);
    pass(&mut relay, &mut context, Duration::from_secs(240));
    assert_eq!(relay.connections.len(), 1);
    pass(&mut relay, &mut context, Duration::from_secs(60));
    assert_eq!(relay.connections.len(), 0);
}
