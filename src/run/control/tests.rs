use super::*;
use kvmlet_control::{Connection, Frame, LONGEST, REQUEST_BYTES, framed};
use kvmlet_sys::wait::{self, Until};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

const LONG: Duration = Duration::from_secs(60);

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
    socket: ControlSocket,
    state: State,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let listener = ControlListener::new(listener.into()).unwrap();
        Self {
            _directory: directory,
            path,
            socket: ControlSocket::new(listener),
            state: State::Running,
        }
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Serves until the condition holds: answers what needs no VM, and statistics.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !done(self) {
            assert!(Instant::now() < deadline);
            self.serve();
        }
    }

    fn serve(&mut self) {
        let due = self.socket.due().map(Until::Deadline);
        let soon = Until::after(Duration::from_millis(5));
        let mut slots: Vec<_> = self.socket.slots().collect();
        wait::any_of(&mut slots, due.map_or(soon, |due| min(due, soon))).unwrap();
        // As in a supervisor's loop: a turn has a reason.
        let is_due = self.socket.due().is_some_and(|due| due <= Instant::now());
        if !is_due && !slots.iter().any(Slot::is_ready) {
            return;
        }
        for wanted in self.socket.turn(self.state) {
            let refused = match wanted.request.order {
                Order::Watch => (!self.socket.watch(&wanted)).then(|| failure("too many")),
                Order::Published => {
                    let report = Report::Published(vec!["8080:80/tcp".into()]);
                    self.socket.tell(&wanted, &report);
                    None
                }
                Order::Stats => {
                    self.socket.keep_stats(br#"{"vcpus":[{"kicks":7}]}"#);
                    None
                }
                _ => Some(failure("no")),
            };
            let this = rustix::process::getpid();
            self.socket.answer(&wanted, refused, this, self.state);
        }
    }

    /// An honest client in another thread, while this one serves.
    fn while_served<T: Send>(&mut self, act: impl FnOnce(Connection) -> T + Send) -> T {
        let connection = Connection::to(&self.path).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| act(connection));
            self.until(|_| thread.is_finished());
            thread.join().unwrap()
        })
    }
}

fn min(one: Until, other: Until) -> Until {
    match (one, other) {
        (Until::Deadline(one), Until::Deadline(other)) => Until::Deadline(one.min(other)),
        (_, other) => other,
    }
}

/// Reads to the end.
fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn who_asks_is_answered() {
    let mut place = Place::new();
    let told = place.while_served(|mut vm| {
        let ports = vm.ask(Order::Published, LONG).unwrap();
        assert_eq!(ports, [Report::Published(vec!["8080:80/tcp".into()])]);
        assert_eq!(vm.ask(Order::Pause, LONG).unwrap_err().to_string(), "no");
        vm.ask(Order::Stats, LONG).unwrap()
    });
    let [Report::Stats(json)] = &told[..] else {
        panic!("{told:?}");
    };
    let stats: kvmlet_spec::Stats = serde_json::from_slice(json).unwrap();
    assert_eq!(stats.vm.vcpus[0].kicks, 7);
    assert!(stats.host.unwrap().resident_bytes > 0);
}

#[test]
fn who_watches_is_told_each_state_and_the_end() {
    let mut place = Place::new();
    let mut watcher = place.while_served(|mut vm| {
        vm.ask(Order::Watch, LONG).unwrap();
        vm
    });
    let deadline = || Some(Instant::now() + LONG);
    place.serve();
    assert_eq!(
        watcher.next(deadline()).unwrap(),
        Some(Report::State(State::Running))
    );
    for state in [State::Paused, State::Ending] {
        place.state = state;
        place.socket.tell_state(state);
        assert_eq!(
            watcher.next(deadline()).unwrap(),
            Some(Report::State(state))
        );
    }
    // A watcher may be silent for as long as it likes.
    assert_eq!(place.socket.due(), None);
    let outcome = kvmlet_spec::Outcome::new(kvmlet_spec::Reason::Panic);
    let end = Report::Ended(Box::new(outcome));
    place.socket.tell_end(&end);
    assert_eq!(watcher.next(deadline()).unwrap(), Some(end));
}

#[test]
fn scrapers_are_answered_in_http() {
    let mut place = Place::new();
    let mut scraper = place.stream();
    // In pieces, as it may come.
    for piece in ["G", "ET /met", "rics HTTP/1.1\r\nHost: vm\r\n", "\r\n"] {
        scraper.write_all(piece.as_bytes()).unwrap();
        place.serve();
    }
    // It is closed as soon as it is answered.
    place.until(|place| place.socket.clients.is_empty());
    assert_eq!(place.socket.due(), None);
    let text = rest(scraper);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("kvmlet_vcpu_exits_total{vcpu=\"0\",kind=\"kick\"} 7\n"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut lost = place.stream();
    lost.write_all(b"GET /else HTTP/1.1\r\n\r\n").unwrap();
    place.until(|place| !place.socket.clients.is_empty());
    place.until(|place| place.socket.clients.is_empty());
    assert!(rest(lost).starts_with("HTTP/1.1 404 "));
}

#[test]
fn who_speaks_nonsense_is_closed() {
    let mut place = Place::new();
    let nothing = framed(&[]);
    let too_long = (REQUEST_BYTES + 1).to_le_bytes();
    let no_request = framed(&[9, 9, 9]);
    for nonsense in [
        &nothing[..],
        &too_long[..4],
        &no_request,
        &[0xff; 100],
        b"PUT / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = place.stream();
        stream.write_all(nonsense).unwrap();
        place.until(|place| !place.socket.clients.is_empty());
        place.until(|place| place.socket.clients.is_empty());
        assert_eq!(rest(stream), "", "{nonsense:?}");
    }
}

#[test]
fn who_sends_half_a_message_or_reads_nothing_is_closed_in_time() {
    let mut place = Place::new();
    place.socket.patience = Duration::from_millis(50);
    let mut half = place.stream();
    half.write_all(&framed(&[1, 5, 0, 0, 0, 0])[..6]).unwrap();
    let silent = place.stream();
    let mut head = place.stream();
    head.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    place.until(|place| place.socket.clients.len() == 3);
    place.until(|place| place.socket.clients.is_empty());
    for stream in [half, silent, head] {
        assert_eq!(rest(stream), "");
    }
    // It asks and asks, and reads no answer.
    let mut deaf = place.stream();
    deaf.set_nonblocking(true).unwrap();
    let request = framed(
        &Request {
            number: 1,
            order: Order::Stats,
        }
        .encode(),
    );
    let mut asked = 0;
    place.until(|place| !place.socket.clients.is_empty());
    place.socket.patience = Duration::from_millis(500);
    let deadline = Instant::now() + LONG;
    while !place.socket.clients.is_empty() {
        asked += usize::from(deaf.write(&request).is_ok());
        place.serve();
        assert!(Instant::now() < deadline);
    }
    assert!(asked > 1);
}

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

#[test]
fn another_user_is_not_heard() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root can be another user");
    }
    let mut place = Place::new();
    let path = place.path.clone();
    let around = path.parent().unwrap();
    for (path, mode) in [(around, 0o755), (&path, 0o666)] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let thread = std::thread::spawn(move || {
        // SAFETY: numbers; the system call changes the user of this thread alone.
        unsafe { libc::syscall(libc::SYS_setresuid, 12345, 12345, 12345) };
        UnixStream::connect(&path).map(rest)
    });
    place.until(|_| thread.is_finished());
    assert_eq!(thread.join().unwrap().unwrap(), "");
    assert!(place.socket.clients.is_empty());
}

#[test]
fn what_is_handed_over_is_a_socket_that_listens() {
    let (one, _other) = UnixStream::pair().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for wrong in [OwnedFd::from(one), null.into(), tcp.into()] {
        assert!(ControlListener::new(wrong).is_err());
    }
}
