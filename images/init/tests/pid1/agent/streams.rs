//! A process's streams: pipes, terminals, and who does not read them.

use std::time::Instant;

use kvmlet_contract::ConsoleSize;
use kvmlet_contract::channel::{Ended, ProcessSpec, Request};

use super::{end, execute, running};
use crate::guest::PATIENCE;
use crate::host::script;

#[test]
fn large_streams_pass_both_ways() {
    let Some((guest, service)) = running() else {
        return;
    };
    let spec = ProcessSpec {
        input: true,
        ..script("tee /dev/stderr; exit 6")
    };
    let mut host = execute(&guest, &spec);
    let bytes: Vec<u8> = (0..1_000_000u32).map(|index| (index % 251) as u8).collect();
    host.input(&bytes);
    host.end_input();
    assert_eq!(host.ended(), Ended::Code(6));
    assert!(host.stdout == bytes, "{}", host.stdout.len());
    assert!(host.stderr == bytes, "{}", host.stderr.len());
    end(guest, service);
}

#[test]
fn a_process_that_reads_no_more_is_not_waited_for() {
    let Some((guest, service)) = running() else {
        return;
    };
    let spec = ProcessSpec {
        input: true,
        ..script("exec <&-; sleep 1; exit 2")
    };
    let mut host = execute(&guest, &spec);
    host.input(&vec![0; 1_000_000]);
    assert_eq!(host.ended(), Ended::Code(2));
    end(guest, service);
}

/// Whoever reads nothing stops the stream that is not read, and nothing else.
#[test]
fn a_reader_who_stands_still_holds_up_only_his_stream() {
    let Some((guest, service)) = running() else {
        return;
    };
    let mut still = execute(
        &guest,
        &script("yes & pid=$!; sleep 1; echo alive >&2; sleep 1000"),
    );
    still.reads_on = false;
    let start = Instant::now();
    let granted = 64 << 10;
    while still.stderr != b"alive\n" || still.stdout.len() < granted {
        assert!(start.elapsed() < PATIENCE, "{}", still.seen());
        let _ = still.try_next();
    }
    let (code, out, _) = execute(&guest, &script("echo others")).finish();
    assert_eq!((code, &*out), (0, "others\n"));
    while still.try_next().is_some() {}
    assert_eq!(still.stdout.len(), granted);
    still.request(&Request::Signal {
        signal: 9,
        group: true,
    });
    end(guest, service);
}

#[test]
fn a_terminal_has_a_size_and_a_line_discipline() {
    let Some((guest, service)) = running() else {
        return;
    };
    let spec = ProcessSpec {
        input: true,
        terminal: Some(ConsoleSize {
            columns: 99,
            rows: 33,
        }),
        ..script(
            "stty size; tty; trap 'stty size; exit 9' WINCH; trap 'echo int; kill -WINCH $$' INT; echo go; while :; do sleep 0.1; done",
        )
    };
    let mut host = execute(&guest, &spec);
    host.wait_for("go");
    let size = ConsoleSize {
        columns: 120,
        rows: 40,
    };
    let out = String::from_utf8_lossy(&host.stdout).into_owned();
    assert!(out.starts_with("33 99\r\n/dev/pts/"), "{out:?}");
    host.request(&Request::Resize { size });
    host.wait_for("40 120");
    assert_eq!(host.ended(), Ended::Code(9));
    // Ctrl-C is typed, not sent.
    let mut host = execute(
        &guest,
        &ProcessSpec {
            input: true,
            terminal: Some(size),
            ..script("echo go; exec sleep 1000")
        },
    );
    host.wait_for("go");
    host.input(b"\x03");
    assert_eq!(host.ended(), Ended::Signal(2));
    end(guest, service);
}
