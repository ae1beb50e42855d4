//! How long connections keep their seats.

use super::super::Seats;
use super::super::source::Users;
use super::*;
use rustix::event::epoll;
use rustix::net::sockopt;
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

#[test]
fn who_comes_and_goes_asks_no_more_of_a_guest_than_there_are_seats() {
    let (mut context, mut relay, server, address) = relay();
    // A backlog that is full leaves what it is asked unanswered.
    rustix::net::listen(&server, 0).unwrap();
    let come_and_go = |relay: &mut TcpRelay, context: &mut Context| {
        let client = TcpStream::connect(address).unwrap();
        pass(relay, context, Duration::ZERO);
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        pass(relay, context, Duration::ZERO);
    };
    for _ in 0..600 {
        come_and_go(&mut relay, &mut context);
    }
    let most = relay.rules.most;
    // Those that the backlog has taken were answered, and made room at once.
    assert!(relay.next as usize <= most + 2, "{} of {most}", relay.next);
    assert_eq!((relay.connections.len(), relay.settling.len()), (0, most));
    // Who wants to stay waits for a seat, a moment only.
    let _client = TcpStream::connect(address).unwrap();
    pass(&mut relay, &mut context, Duration::ZERO);
    assert_eq!(relay.connections.len(), 0);
    pass(&mut relay, &mut context, Duration::from_secs(1));
    assert_eq!((relay.connections.len(), relay.settling.len()), (1, 0));
}

#[test]
fn who_makes_room_leaves_its_guest_no_more_than_there_are_seats() {
    let (mut context, mut relay, server, address) = relay();
    rustix::net::listen(&server, 0).unwrap();
    let most = relay.rules.most;
    // Those whom the backlog takes are connected, and hold no seat of the others'.
    let crowd: Vec<_> = (0..most)
        .map(|_| {
            let client = TcpStream::connect(address).unwrap();
            pass(&mut relay, &mut context, Duration::ZERO);
            client
        })
        .collect();
    assert_eq!(relay.connections.len(), most);
    for connection in relay.connections.values_mut() {
        connection.source = Source::User(1234);
    }
    let _clients = [(); 3].map(|()| {
        let client = TcpStream::connect(address).unwrap();
        pass(&mut relay, &mut context, Duration::ZERO);
        client
    });
    assert_eq!(relay.connections.len() + relay.settling.len(), most);
    pass(&mut relay, &mut context, Duration::from_secs(1));
    let me = Source::User(rustix::process::geteuid().as_raw());
    let mine = relay.connections.values().filter(|one| one.source == me);
    assert_eq!(mine.count(), 3);
    drop(crowd);
}

#[test]
fn a_guest_that_is_full_is_asked_once_more() {
    let (mut context, mut relay, server, address) = relay();
    let _served = TcpStream::connect(address).unwrap();
    pass(&mut relay, &mut context, Duration::ZERO);
    let first = server.accept().unwrap();
    pass(&mut relay, &mut context, Duration::ZERO);
    // As a guest without a free socket, which has one a little later.
    let place = server.local_addr().unwrap();
    drop(server);
    let _refused = TcpStream::connect(address).unwrap();
    pass(&mut relay, &mut context, Duration::ZERO);
    pass(&mut relay, &mut context, Duration::ZERO);
    assert_eq!((relay.connections.len(), relay.later.len()), (2, 1));
    let again = TcpListener::bind(place).unwrap();
    pass(&mut relay, &mut context, Duration::from_millis(60));
    again.accept().unwrap();
    pass(&mut relay, &mut context, Duration::ZERO);
    assert!(relay.connections.values().all(Connection::is_connected));
    // One that is never free refuses, in the end.
    drop(again);
    let _refused = TcpStream::connect(address).unwrap();
    for _ in 0..30 {
        pass(&mut relay, &mut context, Duration::from_millis(100));
    }
    assert_eq!((relay.connections.len(), relay.later.len()), (2, 0));
    drop(first);
}
