mod seats;

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
