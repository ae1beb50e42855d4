//! Standard error that nobody reads: a log is dropped, and holds up nothing.

use crate::cli::{Running, kill, kvmlet};
use crate::harness::{Test, patience::eventually};
use crate::stop::KINDS;
use crate::terminal::pseudo_terminal;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("a_log_that_nobody_reads_holds_up_nothing", unread),
    ("what_was_dropped_of_a_log_is_told", told),
    ("an_error_that_nobody_reads_ends_all_the_same", error),
];

/// Leaves no room in it.
fn fill(stream: &OwnedFd) {
    let flags = fcntl_getfl(stream).unwrap();
    fcntl_setfl(stream, flags | OFlags::NONBLOCK).unwrap();
    for piece in [4096, 1] {
        while rustix::io::write(stream, &vec![b'x'; piece]).is_ok() {}
    }
    fcntl_setfl(stream, flags).unwrap();
}

/// Makes a stream: its end that nobody reads, and the one to be written to.
type MakeStream = Box<dyn FnOnce() -> (OwnedFd, OwnedFd)>;

/// Full streams of each sort.
fn full_streams() -> [(&'static str, MakeStream); 3] {
    let pipe = || {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer.into())
    };
    let socket = || {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        (one.into(), other.into())
    };
    let terminal = || {
        let (ours, theirs) = pseudo_terminal();
        (ours.into(), theirs)
    };
    let full = |pair: fn() -> (OwnedFd, OwnedFd)| {
        Box::new(move || {
            let (reader, writer) = pair();
            fill(&writer);
            (reader, writer)
        }) as Box<dyn FnOnce() -> _>
    };
    [
        ("pipe", full(pipe)),
        ("socket", full(socket)),
        ("terminal", full(terminal)),
    ]
}

/// A guest that runs and hears its power button.
fn started(command: &mut Command, log: OwnedFd) -> Running {
    command.stdout(Stdio::piped()).stderr(log);
    let mut child = Running::spawn(command);
    let mut line = String::new();
    let mut console = BufReader::new(child.stdout.take().unwrap());
    console.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// Its exit code.
fn end(mut child: Running) -> Option<i32> {
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

fn unread() {
    for arguments in KINDS {
        for (what, full) in full_streams() {
            let (_reader, log) = full();
            let mut command = kvmlet("power_button");
            command.args(["-vv", "--cmdline", "code=7"]).args(arguments);
            let child = started(&mut command, log);
            kill(child.id() as i32, libc::SIGTERM);
            assert_eq!(end(child), Some(7), "{what} {arguments:?}");
        }
        // It is told to end, does not, and is cut: each of that is worth a line.
        let (_reader, log) = full_streams().into_iter().next().unwrap().1();
        let mut command = kvmlet("power_button");
        command.args(["-v", "--cmdline", "presses=0", "--stop-timeout", "0"]);
        let child = started(command.args(arguments), log);
        kill(child.id() as i32, libc::SIGTERM);
        assert_eq!(end(child), Some(143), "{arguments:?}");
    }
}

/// The jail has much to say before the guest runs.
fn told() {
    let (reader, writer) = std::io::pipe().unwrap();
    let log = OwnedFd::from(writer);
    fill(&log);
    let mut command = kvmlet("power_button");
    command.args(["-vv", "--cmdline", "code=7"]);
    let child = started(&mut command, log);
    drop(command);
    let mut reader = File::from(OwnedFd::from(reader));
    reader.read_exact(&mut [0; 32 << 10]).unwrap();
    kill(child.id() as i32, libc::SIGTERM);
    assert_eq!(end(child), Some(7));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let heard = rest.trim_start_matches('x');
    let heard = heard.strip_prefix("kvmlet: ").expect(heard);
    let told = heard.split_once(" lines were dropped here: nobody read them in time\n");
    let (count, after) = told.expect(heard);
    assert!(count.parse::<u32>().unwrap() > 5, "{heard}");
    assert!(after.contains("INFO"), "{heard}");
}

/// Its reader has a second.
fn error() {
    for (what, full) in full_streams() {
        let (_reader, log) = full();
        let mut command = kvmlet("ready");
        command.args(["--memory", "1T"]).stderr(log);
        let child = Running::spawn(&mut command);
        assert_eq!(end(child), Some(125), "{what}");
    }
}
