//! What the supervisors of an instance use of the host's memory, whatever their guest and their clients do.

use crate::cli::{run, text};
use crate::harness::{Test, program};
use crate::ports::on_own_host;
use kvmlet_control::agent::Agent;
use kvmlet_control::agent::channel::{Output, Request};
use kvmlet_manager::supervision::attach;
use kvmlet_manager::{Book, Instance};
use rustix::mount::{MountFlags, mount};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use std::fs::read_to_string;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "supervisors_stay_small_whatever_guest_and_clients_do",
        hostile,
    ),
    ("what_a_service_is_given_is_in_no_list_of_processes", shown),
];

/// All that a supervisor may have that is its own, in KiB: the pages of its program are shared by all.
const MOST_KIB: u64 = 4096;
/// How long each guest goes on.
const TIME: Duration = Duration::from_secs(2);
/// Who is attached, and may be.
const ATTACHED: usize = 4;

/// An empty root file system in the directory where commands run, and a book of their own.
struct OwnBook(tempfile::TempDir);

impl OwnBook {
    /// On a host of one's own.
    fn new() -> Self {
        let mode = Some(c"mode=755");
        mount("book", "/var/lib", "tmpfs", MountFlags::empty(), mode).unwrap();
        let place = tempfile::tempdir().unwrap();
        let files = place.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let made = run(Command::new("mkfs.erofs").args([place.path().join("root"), files]));
        assert!(made.status.success(), "{}", text(&made.stderr));
        Self(place)
    }

    /// A command that succeeds.
    fn kvmlet(&self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        command.args(arguments).current_dir(self.0.path());
        let output = run(command.stdin(Stdio::null()));
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    is_root
}

fn hostile() {
    if !is_root() {
        return;
    }
    on_own_host(|| {
        let book = OwnBook::new();
        let kernel = program("agent").display().to_string();
        for service in ["torrent", "many=4000000000", "stay"] {
            let flags = ["run", "-d", "--name", "web", "-m", "16m"];
            let log = ["--log-opt", "max-size=1m", "--kernel", &kernel];
            book.kvmlet(&[&flags[..], &log, &["root", "out=begun", service]].concat());
            let most = watch();
            println!("{service}: {most:?} KiB");
            book.kvmlet(&["rm", "-f", "web"]);
            let fits = most.iter().all(|kib| *kib <= MOST_KIB);
            assert!(fits, "{service}: {most:?} KiB");
        }
    });
}

/// Its supervisors are forked from the command that was given it, and live as long as the service.
fn shown() {
    if !is_root() {
        return;
    }
    on_own_host(|| {
        let book = OwnBook::new();
        let kernel = program("agent").display().to_string();
        let flags = [
            "run", "-d", "--name", "web", "-m", "16m", "--kernel", &kernel,
        ];
        book.kvmlet(&[&flags[..], &["-e", "PASSWORD=hunter2", "root", "stay"]].concat());
        let instance = Book::of_user().unwrap().find("web").unwrap();
        let keeper = instance.record().unwrap().keeper.unwrap().pid;
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let vm: u32 = read_to_string(path)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let id = instance.id().to_string();
        for process in [keeper, vm] {
            let line = read_to_string(format!("/proc/{process}/cmdline")).unwrap();
            let words: Vec<&str> = line.split('\0').take(3).collect();
            assert_eq!(words[1..], ["keep", &id], "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
        book.kvmlet(&["rm", "-f", "web"]);
    });
}

/// The most that the instance's supervisor and its VM's have at any time, while clients do what they like.
fn watch() -> [u64; 2] {
    let instance = Book::of_user().unwrap().find("web").unwrap();
    let keeper = instance.record().unwrap().keeper.unwrap().pid;
    let (until, mut most) = (Instant::now() + TIME, [0; 2]);
    // Before the others, who fill its backlog.
    let _attached: Vec<Agent> = (0..ATTACHED).flat_map(|_| greedy(&instance)).collect();
    let mut strangers = Vec::new();
    let mut turn = 0_usize;
    while Instant::now() < until {
        turn += 1;
        strangers.extend(stranger(&instance, turn));
        if strangers.len() > 40 {
            strangers.drain(..20);
        }
        let Some(memory) = own_kib(keeper) else {
            // A guest that breaks the rules ends.
            break;
        };
        most[0] = most[0].max(memory);
        let path = format!("/proc/{keeper}/task/{keeper}/children");
        let children = read_to_string(path).unwrap_or_default();
        let child = children.split_whitespace().next();
        let memory = child.and_then(|pid| own_kib(pid.parse().unwrap()));
        most[1] = most[1].max(memory.unwrap_or(0));
    }
    assert!(most[0] > 0, "it was looked at");
    most
}

/// Memory of a process that no file has, while it lives.
fn own_kib(pid: u32) -> Option<u64> {
    let text = read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Somebody who is attached, wants all there is, and never reads.
fn greedy(instance: &Instance) -> Option<Agent> {
    let mut agent = attach(instance.directory()).ok()?;
    agent.client().attach();
    for output in [Output::Stdout, Output::Stderr] {
        let bytes = u32::MAX / 2;
        agent
            .client()
            .request(&Request::Credit { output, bytes })
            .ok()?;
    }
    let _ = agent.turn();
    Some(agent)
}

/// Somebody who says nothing, or nonsense, if there is room for one more.
fn stranger(instance: &Instance, turn: usize) -> Option<OwnedFd> {
    let name = ["attach", "control.sock"][turn % 2];
    let address = SocketAddrUnix::new(instance.directory().path().join(name)).ok()?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &address).ok()?;
    let said: &[u8] = match turn / 2 % 3 {
        0 => &[0xff; 65_536],
        1 => &[1, 0, 0],
        _ => &[],
    };
    let _ = send(&socket, said, SendFlags::NOSIGNAL);
    Some(socket)
}
