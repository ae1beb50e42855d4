//! How many are heard, and who makes room.

use super::*;

#[test]
fn a_flood_of_clients_is_bounded_and_others_have_their_turn() {
    let mut place = Place::new();
    place.socket.patience = Duration::from_millis(200);
    let flood: Vec<_> = (0..4 * MOST).map(|_| place.stream()).collect();
    // It is accepted when those before it have had their time, and served when there is room.
    let deadline = Instant::now() + LONG;
    while let Err(error) = place.while_served(|mut vm| vm.ask(Order::Published, LONG)) {
        assert!(error.to_string().contains("as many programs"), "{error}");
        assert!(Instant::now() < deadline);
    }
    assert!(place.socket.clients.len() <= MOST + MOST_REFUSED);
    drop(flood);
}

#[test]
fn who_is_one_too_many_is_told_so_at_once() {
    let mut place = Place::new();
    (place.socket.patience, place.socket.grace) = (LONG, LONG);
    let request = Request {
        number: 1,
        order: Order::Published,
    };
    let mut busy: Vec<_> = (0..MOST).map(|_| place.stream()).collect();
    for stream in &mut busy {
        stream.write_all(&framed(&request.encode())).unwrap();
    }
    // They wait for their answers.
    let deadline = Instant::now() + LONG;
    while place.socket.served() < MOST {
        assert!(Instant::now() < deadline);
        place.socket.turn(place.state);
    }
    let error = place.while_served(|mut vm| vm.ask(Order::Published, LONG).unwrap_err());
    assert_eq!(
        error.to_string(),
        "as many programs as the VM serves at a time (8) are connected to it already"
    );
    let mut scraper = place.stream();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    place.until(|place| place.socket.clients.len() == MOST + 1);
    place.until(|place| place.socket.clients.len() == MOST);
    assert!(rest(scraper).starts_with("HTTP/1.1 503 "));
    // One that waits for its turn has it when somebody leaves.
    let waiting = Connection::to(&place.path).unwrap();
    place.until(|place| place.socket.clients.len() == MOST + 1);
    let first = *place.socket.clients.keys().next().unwrap();
    let wanted = Wanted {
        client: first,
        request,
        is_scrape: false,
    };
    let this = rustix::process::getpid();
    place.socket.answer(&wanted, None, this, place.state);
    std::thread::scope(|scope| {
        let mut waiting = waiting;
        let thread = scope.spawn(move || waiting.ask(Order::Published, LONG).map(drop));
        place.until(|_| thread.is_finished());
        thread.join().unwrap().unwrap();
    });
}

#[test]
fn who_is_silent_locks_nobody_out() {
    let mut place = Place::new();
    place.socket.patience = LONG;
    let watcher = place.while_served(|mut vm| {
        vm.ask(Order::Watch, LONG).unwrap();
        vm
    });
    let mut silent: Vec<_> = (0..60).map(|_| place.stream()).collect();
    let since = Instant::now();
    // At once, and each time: those who are silent take nobody's place.
    for _ in 0..2 * MOST {
        place.while_served(|mut vm| vm.ask(Order::Published, LONG).unwrap());
    }
    assert!(since.elapsed() < LONG);
    assert!(place.socket.clients.len() <= MOST + MOST_REFUSED);
    // Who watches has a reason to be silent.
    assert!(place.socket.clients.values().any(Client::watches));
    silent.push(place.stream());
    place.until(|place| place.socket.due().is_some());
    drop(watcher);
}

#[test]
fn a_full_socket_that_nobody_wants_is_waited_at_without_end() {
    let mut place = Place::new();
    (place.socket.patience, place.socket.grace) = (LONG, Duration::ZERO);
    let _silent: Vec<_> = (0..MOST + MOST_REFUSED).map(|_| place.stream()).collect();
    place.until(|place| place.socket.is_full());
    let now = Instant::now();
    assert!(place.socket.due().unwrap() > now + LONG / 2);
    let mut slots: Vec<_> = place.socket.slots().collect();
    wait::any_of(&mut slots, Until::Now).unwrap();
    assert!(!slots.iter().any(Slot::is_ready));
}

#[test]
fn who_asks_without_end_keeps_nobody_from_being_heard() {
    let mut place = Place::new();
    let mut loud = place.stream();
    let request = framed(
        &Request {
            number: 1,
            order: Order::Published,
        }
        .encode(),
    );
    loud.write_all(&request.repeat(500)).unwrap();
    place.until(|place| !place.socket.clients.is_empty());
    for _ in 0..5 {
        place.while_served(|mut vm| vm.ask(Order::Published, LONG).unwrap());
    }
    // It hears its own answers in order, as long as it reads them.
    let mut frame = Frame::new(LONGEST);
    let mut answers = 0;
    let deadline = Instant::now() + LONG;
    loud.set_nonblocking(true).unwrap();
    while answers < 500 {
        assert!(Instant::now() < deadline);
        place.serve();
        let mut bytes = vec![0; frame.lacks()];
        while let Ok(count @ 1..) = loud.read(&mut bytes) {
            if let Some(message) = frame.add(&bytes[..count]).unwrap() {
                let is_answer = matches!(Report::decode(&message), Ok(Report::Answer { .. }));
                answers += usize::from(is_answer);
            }
            bytes = vec![0; frame.lacks()];
        }
    }
}

#[test]
fn only_some_may_watch_for_ever() {
    let mut place = Place::new();
    let watchers: Vec<_> = (0..MOST_WATCHERS)
        .map(|_| {
            place.while_served(|mut vm| {
                vm.ask(Order::Watch, LONG).unwrap();
                vm
            })
        })
        .collect();
    let error = place.while_served(|mut vm| vm.ask(Order::Watch, LONG).unwrap_err());
    assert_eq!(error.to_string(), "too many");
    drop(watchers);
    place.until(|place| place.socket.clients.is_empty());
    place.while_served(|mut vm| vm.ask(Order::Watch, LONG).map(drop).unwrap());
}
