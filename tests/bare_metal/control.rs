//! A VM's control socket, with a VM behind it: what it can be asked, and clients that mean it no good.

use super::cli::{Running, kill, kvmlet, text};
use crate::harness::control::with_control;
use crate::harness::{Test, deadline, number};
use kvmlet_control::{Connection, ConnectionError, Order, Report, Request, State, framed};
use kvmlet_spec::{Outcome, Reason, Stats};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "a_vm_is_paused_watched_and_ended_by_its_control_socket",
        asked,
    ),
    ("a_vm_tells_scrapers_what_it_uses", scraped),
    (
        "a_hostile_client_neither_grows_nor_holds_up_a_supervisor",
        hostile,
    ),
    ("a_control_socket_is_one_that_listens", no_socket),
];

/// What a supervisor may grow by, whatever its clients do.
const GROWTH_KIB: f64 = 2048.0;

/// A VM with a control socket.
struct Controlled {
    vm: Running,
    path: PathBuf,
    _place: tempfile::TempDir,
}

impl Controlled {
    /// One that works without end.
    fn spinning() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut command = kvmlet("spin");
        let command = with_control(&mut command, listener.into());
        let mut vm = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        vm.expect_two_bytes();
        let _place = place;
        Self { vm, path, _place }
    }

    fn connect(&self) -> Connection {
        Connection::to(&self.path).unwrap()
    }

    /// The memory of the supervisor alone, in KiB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.vm.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        number(line, "VmRSS:")
    }
}

fn stats(vm: &mut Connection) -> Stats {
    let told = vm.ask(Order::Stats, deadline()).unwrap();
    let json = told.iter().find_map(|report| match report {
        Report::Stats(json) => Some(json),
        _ => None,
    });
    serde_json::from_slice(json.unwrap()).unwrap()
}

fn vcpu_time(vm: &mut Connection) -> u64 {
    stats(vm).host.unwrap().vcpu_cpu_us[0]
}

fn asked() {
    let mut controlled = Controlled::spinning();
    let mut watcher = controlled.connect();
    watcher.ask(Order::Watch, deadline()).unwrap();
    let mut next = move || {
        watcher
            .next(Some(Instant::now() + deadline()))
            .unwrap()
            .unwrap()
    };
    assert_eq!(next(), Report::State(State::Running));
    let mut vm = controlled.connect();
    let since = Instant::now();
    while vcpu_time(&mut vm) < 50_000 {
        assert!(since.elapsed() < deadline());
    }
    vm.ask(Order::Pause, deadline()).unwrap();
    assert_eq!(next(), Report::State(State::Paused));
    // What stands still uses no CPU time, however long that is.
    let before = vcpu_time(&mut vm);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(vcpu_time(&mut vm), before);
    let refused = vm.ask(Order::Pause, deadline()).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("cannot pause a VM that is paused"),
        "{refused}"
    );
    vm.ask(Order::Resume, deadline()).unwrap();
    assert_eq!(next(), Report::State(State::Running));
    let since = Instant::now();
    while vcpu_time(&mut vm) == before {
        assert!(since.elapsed() < deadline());
    }
    assert_eq!(
        vm.ask(Order::Published, deadline()).unwrap(),
        [Report::Published(vec![])]
    );
    let hup = Order::Signal { signal: 1 };
    let refused = vm.ask(hup, deadline()).unwrap_err();
    assert!(matches!(refused, ConnectionError::Refused(_)), "{refused}");
    let signal = Order::Signal { signal: 9 };
    vm.ask(signal, deadline()).unwrap();
    assert_eq!(next(), Report::State(State::Ending));
    let Report::Ended(outcome) = next() else {
        panic!("its end is told");
    };
    let Outcome { reason, signal, .. } = *outcome;
    assert_eq!((reason, signal), (Reason::Signal, Some(9)));
    assert_eq!(controlled.vm.wait().unwrap().code(), Some(137));
    assert!(Connection::to(&controlled.path).is_err());
}

fn scraped() {
    let controlled = Controlled::spinning();
    let mut scraper = UnixStream::connect(&controlled.path).unwrap();
    scraper.set_read_timeout(Some(deadline())).unwrap();
    scraper
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: vm\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    scraper.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = format!("\r\nContent-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    for line in [
        "kvmlet_state{state=\"running\"} 1",
        "# TYPE kvmlet_vcpu_cpu_seconds counter",
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} in {body}");
    }
    let exits = "kvmlet_vcpu_exits_total{vcpu=\"0\",kind=\"port_write\"} ";
    let line = body
        .lines()
        .find_map(|line| line.strip_prefix(exits))
        .unwrap();
    assert!(line.parse::<u64>().unwrap() >= 2, "{line}");
}

/// Clients that connect and say nothing, send half of something, all of nonsense, ask without end and never read.
fn attack(path: &Path, until: Instant) {
    let request = |order| framed(&Request { number: 7, order }.encode());
    let (stats, watch) = (request(Order::Stats), request(Order::Watch));
    let mut clients: Vec<UnixStream> = Vec::new();
    let mut turn = 0_usize;
    while Instant::now() < until {
        turn += 1;
        if clients.len() >= 150 {
            clients.drain(..75);
        }
        // Its backlog may be full, and it may have closed them.
        let Ok(mut client) = UnixStream::connect(path) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        client.set_nonblocking(true).unwrap();
        let _ = match turn % 7 {
            0 => client.write(&stats[..5]),
            1 => client.write(&[0xff; 4096]),
            2 => client.write(&stats.repeat(100)),
            3 => client.write(&watch.repeat(100)),
            4 => client.write(b"GET /metrics HTTP/1.1\r\n"),
            5 => client.write(b"GET /metrics HTTP/1.1\r\n\r\n"),
            _ => client.write(&[]),
        };
        clients.push(client);
    }
}

fn hostile() {
    let mut controlled = Controlled::spinning();
    let mut honest = controlled.connect();
    // Who watches keeps its place.
    honest.ask(Order::Watch, deadline()).unwrap();
    stats(&mut honest);
    let before = controlled.memory();
    let until = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| attack(&controlled.path, until));
        }
        while Instant::now() < until {
            stats(&mut honest);
            let grown = controlled.memory() - before;
            assert!(grown <= GROWTH_KIB, "{grown} KiB more than {before}");
        }
    });
    stats(&mut honest);
    controlled.vm.expect_two_bytes();
    // Its end is nobody's to hold up.
    let _silent: Vec<_> = (0..20)
        .filter_map(|_| UnixStream::connect(&controlled.path).ok())
        .collect();
    kill(i32::try_from(controlled.vm.id()).unwrap(), libc::SIGTERM);
    let code = controlled.vm.wait().unwrap().code();
    let mut said = String::new();
    let err = controlled.vm.stderr.as_mut().unwrap();
    err.read_to_string(&mut said).unwrap();
    assert_eq!(code, Some(143), "{said}");
}

fn no_socket() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let output = with_control(&mut kvmlet("power_off"), ours.into())
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(
        message.contains("no Unix stream socket that listens"),
        "{message}"
    );
    let output = kvmlet("power_off")
        .args(["--control-fd", "1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let output = kvmlet("power_off")
        .args(["--control-fd", "733"])
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("descriptor 733 cannot be used"));
}
