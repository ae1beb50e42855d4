//! Connections: how many, whose, and what becomes of what they carried.

use kvmlet_contract::channel::{Ended, Fault, MAX_SESSIONS, ProcessSpec, Request, Role};

use super::{end, execute, running};
use crate::host::{Host, Said, script};

/// The shell complains of its child that was hung up, too, and nobody reads that any more: it would be killed for writing.
#[test]
fn a_lost_connection_hangs_up() {
    let Some((guest, service)) = running() else {
        return;
    };
    let mut lost = execute(
        &guest,
        &script(
            "exec 2>/dev/null; trap 'echo hup > /tmp/hup; exit' HUP; echo go; while :; do sleep 0.1; done",
        ),
    );
    lost.wait_for("go");
    drop(lost);
    let (code, out, _) = execute(
        &guest,
        &script("while ! [ -s /tmp/hup ]; do sleep 0.1; done; cat /tmp/hup"),
    )
    .finish();
    assert_eq!((code, &*out), (0, "hup\n"));
    end(guest, service);
}

#[test]
fn there_is_a_bound_and_it_is_told() {
    let Some((guest, service)) = running() else {
        return;
    };
    let mut hosts: Vec<Host> = (0..MAX_SESSIONS)
        .map(|_| execute(&guest, &script("echo go; exec sleep 1000")))
        .collect();
    for host in &mut hosts {
        host.wait_for("go");
    }
    let mut beyond = execute(&guest, &script("true"));
    let Said::Failed(Fault::Busy, message) = beyond.next() else {
        panic!("it is served");
    };
    assert_eq!(
        message,
        "do more at once: there are 65 connections into the guest already"
    );
    // One goes, and there is room for another.
    let signal = Request::Signal {
        signal: 15,
        group: false,
    };
    hosts[0].request(&signal);
    assert_eq!(hosts[0].ended(), Ended::Signal(15));
    assert_eq!(hosts[0].next(), Said::Gone);
    assert_eq!(execute(&guest, &script("exit 3")).finish().0, 3);
    end(guest, service);
}

#[test]
fn a_host_that_breaks_the_rules_is_told_and_nothing_else_happens() {
    let Some((guest, service)) = running() else {
        return;
    };
    let cases: [(&[Request<'_>], &str); 6] = [
        (
            &[Request::Start { role: Role::Exec }],
            "start a process that is not described",
        ),
        (
            &[Request::Describe { part: b"x" }],
            "take a description that did not begin",
        ),
        (
            &[
                Request::Begin { length: 1 },
                Request::Describe { part: b"xy" },
            ],
            "take more of a description than was announced",
        ),
        (
            &[Request::Begin { length: 1 << 21 }],
            "take a description of that length",
        ),
        (
            &[Request::PowerOff],
            "power off a machine whose service has not ended",
        ),
        (
            &[
                Request::Begin { length: 0 },
                Request::Start {
                    role: Role::Service,
                },
            ],
            "start a second service",
        ),
    ];
    for (requests, expected) in cases {
        let mut host = Host::connect(&guest);
        for request in requests {
            host.request(request);
        }
        assert_eq!(host.next(), Said::Failed(Fault::Protocol, expected.into()));
        assert_eq!(host.next(), Said::Gone);
    }
    let mut host = Host::connect(&guest);
    host.write(b"GET / HTTP/1.1\r\n\r\n");
    let Said::Failed(Fault::Protocol, message) = host.next() else {
        panic!("it is served");
    };
    assert!(
        message.starts_with("understand the host: a frame of"),
        "{message}"
    );
    end(guest, service);
}

/// As in a guest that was restored, whose connections are gone.
#[test]
fn a_service_is_taken_over() {
    let Some((guest, mut first)) = running() else {
        return;
    };
    first.input(b"one\n");
    first.wait_for("one");
    drop(first);
    let mut second = Host::connect(&guest).attach();
    second.started();
    second.input(b"two\n");
    second.wait_for("two");
    // The last one has it, and the one before is told so by its end.
    let mut third = Host::connect(&guest).attach();
    third.started();
    assert_eq!(second.next(), Said::Gone);
    end(guest, third);
}

/// A process of the guest, even root's.
#[test]
fn the_guest_itself_is_refused() {
    let Some((guest, service)) = running() else {
        return;
    };
    let python = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/agent/guest'); print(s.recv(100))";
    let spec = ProcessSpec {
        arguments: ["python3", "-c", python].map(Into::into).into(),
        ..ProcessSpec::default()
    };
    let (code, out, err) = execute(&guest, &spec).finish();
    assert_eq!((code, &*out), (0, "b''\n"), "{err}");
    end(guest, service);
}
