//! The agent: a service described and heard over a channel, and processes beside it.

use std::time::{Duration, Instant};

use kvmlet_contract::ConsoleSize;
use kvmlet_contract::channel::{
    Ended, Fault, MAX_SESSIONS, MAX_STRING, MountSpec, ProcessSpec, Request, Role,
};

use crate::guest::Running;
use crate::host::{Host, Said, guest, guest_with, script};

/// A service that stays until its input ends.
fn stays() -> ProcessSpec {
    ProcessSpec {
        input: true,
        ..script("echo ready; cat; exit 7")
    }
}

/// A guest whose service stays, and its connection.
fn running() -> Option<(Running, Host)> {
    let (guest, host) = guest()?;
    let mut host = host.start(&stays(), Role::Service);
    host.wait_for("ready");
    Some((guest, host))
}

fn execute(guest: &Running, spec: &ProcessSpec) -> Host {
    Host::connect(guest).start(spec, Role::Exec)
}

/// Ends the service, hears of it, lets the guest power off.
#[track_caller]
fn end(guest: Running, mut service: Host) {
    service.end_input();
    assert_eq!(service.ended(), Ended::Code(7));
    service.request(&Request::PowerOff);
    let outcome = guest.wait();
    assert_eq!(
        (outcome.code, outcome.powered_off),
        (Some(7), true),
        "{outcome:?}"
    );
}

#[test]
fn a_service_is_described_and_heard() {
    let Some((guest, host)) = guest() else { return };
    let mut spec = script(
        r#"printf '%s|' "$0" "$A" "$HOME"; pwd; hostname; echo bad >&2; mountpoint -q /data/x && exit 7"#,
    );
    spec.arguments.push(b"a\xff\nb".into());
    spec.variables = (0..100)
        .map(|index| (format!("V{index}").into_bytes(), b"\n\xffe".to_vec()))
        .collect();
    spec.variables.push((b"A".into(), b"x y\"".into()));
    spec.variables
        .push((b"BIG".into(), vec![b'x'; MAX_STRING - 4]));
    spec.hostname = Some("web-1".into());
    spec.workdir = Some(b"/made/for/it".into());
    spec.make_workdir = true;
    spec.mounts.push(MountSpec {
        flags: 0,
        source: b"tmpfs".into(),
        target: b"/data/x".into(),
        fstype: b"tmpfs".into(),
        options: b"size=1m".into(),
    });
    let mut host = host.start(&spec, Role::Service);
    assert_eq!(
        host.ended(),
        Ended::Code(7),
        "{:?}",
        String::from_utf8_lossy(&host.stderr)
    );
    assert_eq!(host.stdout, b"a\xff\nb|x y\"|/|/made/for/it\nweb-1\n");
    assert_eq!(host.stderr, b"bad\n");
    host.request(&Request::PowerOff);
    let outcome = guest.wait();
    assert_eq!((outcome.code, outcome.powered_off), (Some(7), true));
    assert!(!outcome.output.contains("bad"), "it is on the console");
}

#[test]
fn the_image_counts_where_the_description_is_silent() {
    let file = r#"{"command": ["sh", "-c", "echo $A $B; pwd"], "env": {"A": "image", "B": "image"}, "workdir": "/tmp"}"#;
    let with_file = |guest: crate::guest::Guest| guest.file("etc/kvmlet/service.json", file);
    let Some((_guest, host)) = guest_with(with_file) else {
        return;
    };
    let spec = ProcessSpec {
        variables: vec![(b"B".into(), b"host".into())],
        ..ProcessSpec::default()
    };
    let (code, stdout, _) = host.start(&spec, Role::Service).finish();
    assert_eq!((code, &*stdout), (0, "image host\n/tmp\n"));
}

#[test]
fn a_service_that_does_not_start_is_told() {
    let Some((guest, host)) = guest() else { return };
    let spec = ProcessSpec {
        arguments: vec![b"nope".into()],
        ..ProcessSpec::default()
    };
    let mut host = host.start(&spec, Role::Service);
    let message = "run \"nope\": it is in no directory of PATH";
    let fault = Fault::Start { exit_code: 127 };
    assert_eq!(host.next(), Said::Failed(fault, message.into()));
    host.request(&Request::PowerOff);
    let outcome = guest.wait();
    assert_eq!((outcome.code, outcome.powered_off), (Some(127), true));
}

#[test]
fn processes_are_executed_beside_the_service() {
    let Some((guest, service)) = running() else {
        return;
    };
    let (code, out, err) = execute(&guest, &script("echo out; echo err >&2; exit 3")).finish();
    assert_eq!((code, &*out, &*err), (3, "out\n", "err\n"));
    let mut killed = execute(&guest, &script("kill -9 $$"));
    assert_eq!(killed.ended(), Ended::Signal(9));
    // No input is an end of input, and not a wait.
    let (code, out, _) = execute(&guest, &script("cat; echo done")).finish();
    assert_eq!((code, &*out), (0, "done\n"));
    let missing = ProcessSpec {
        arguments: vec![b"/bin/nope".into()],
        ..ProcessSpec::default()
    };
    let mut missing = execute(&guest, &missing);
    let message = "run \"/bin/nope\": no such file, or the interpreter that it names is missing";
    assert_eq!(
        missing.next(),
        Said::Failed(Fault::Start { exit_code: 127 }, message.into())
    );
    assert_eq!(missing.next(), Said::Gone);
    end(guest, service);
}

#[test]
fn it_returns_when_its_process_ends() {
    let Some((guest, service)) = running() else {
        return;
    };
    let start = Instant::now();
    let (code, out, _) = execute(&guest, &script("sleep 1000 & echo started; exit 4")).finish();
    assert_eq!((code, &*out), (4, "started\n"));
    // All that it wrote comes, and nothing of what others go on writing.
    let (code, out, _) = execute(&guest, &script("yes & yes x | head -c 100000; exit 5")).finish();
    assert_eq!((code, out.matches('x').count()), (5, 50_000));
    assert!(start.elapsed() < Duration::from_secs(15));
    end(guest, service);
}

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
    while still.stderr != b"alive\n" && start.elapsed() < Duration::from_secs(10) {
        let _ = still.try_next();
    }
    assert_eq!(still.stderr, b"alive\n");
    assert_eq!(still.stdout.len(), 64 << 10, "as much as was granted");
    let (code, out, _) = execute(&guest, &script("echo others")).finish();
    assert_eq!((code, &*out), (0, "others\n"));
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

#[test]
fn a_lost_connection_hangs_up() {
    let Some((guest, service)) = running() else {
        return;
    };
    let mut lost = execute(
        &guest,
        &script("trap 'echo hup > /tmp/hup; exit' HUP; echo go; while :; do sleep 0.1; done"),
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
fn a_detached_process_goes_on() {
    let Some((guest, service)) = running() else {
        return;
    };
    let spec = ProcessSpec {
        detached: true,
        ..script("sleep 1; echo done > /tmp/done")
    };
    let mut host = execute(&guest, &spec);
    host.started();
    drop(host);
    let (code, out, _) = execute(
        &guest,
        &script("while ! [ -s /tmp/done ]; do sleep 0.1; done; cat /tmp/done"),
    )
    .finish();
    assert_eq!((code, &*out), (0, "done\n"));
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

#[test]
fn a_stop_is_told_step_by_step() {
    let Some((guest, host)) = guest() else { return };
    let spec = ProcessSpec {
        stop_signal: Some(1),
        stop_timeout_ms: Some(1000),
        ..script("trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done")
    };
    let mut host = host.start(&spec, Role::Service);
    host.wait_for("ready");
    host.request(&Request::Stop {
        signal: None,
        timeout_ms: None,
    });
    let step = |text: &str| Said::Other(format!("Stopping {{ step: {text} }}"));
    assert_eq!(host.next(), step("Signalled { signal: 1 }"));
    assert_eq!(host.next(), step("Killed"));
    assert_eq!(host.ended(), Ended::Signal(9));
    assert_eq!(host.stdout, b"ready\nhup\n");
    host.request(&Request::PowerOff);
    assert_eq!(guest.wait().code, Some(137));
}

#[test]
fn the_power_button_is_told_as_well() {
    let Some((guest, host)) = guest() else { return };
    let mut host = host.start(&script("echo ready; exec sleep 1000"), Role::Service);
    host.wait_for("ready");
    let guest = guest.signal("PWR");
    assert_eq!(
        host.next(),
        Said::Other("Stopping { step: Signalled { signal: 15 } }".into())
    );
    assert_eq!(host.ended(), Ended::Signal(15));
    host.request(&Request::PowerOff);
    assert_eq!(guest.wait().code, Some(143));
}

#[test]
fn a_guest_ends_without_a_host() {
    let Some((guest, host)) = running() else {
        return;
    };
    drop(host);
    let mut host = execute(&guest, &script("until pkill -x cat; do sleep 0.1; done"));
    host.ended();
    let start = Instant::now();
    assert_eq!(guest.wait().code, Some(7));
    assert!(start.elapsed() < Duration::from_secs(15));
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

#[test]
fn an_idle_agent_does_nothing_and_is_small() {
    let Some((guest, service)) = running() else {
        return;
    };
    assert_eq!(execute(&guest, &script("exit 3")).finish().0, 3);
    // What has just ended is still being reaped.
    std::thread::sleep(Duration::from_millis(500));
    let (before, kib) = (guest.switches(), guest.memory_kib());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(guest.switches(), before, "it woke up");
    // Beside the program's own pages, of which a test build has many.
    assert!(kib <= 150, "{kib} KiB");
    end(guest, service);
}

#[test]
fn the_machine_is_changed() {
    let Some((guest, mut service)) = running() else {
        return;
    };
    service.request(&Request::Network {
        spec: "eth0,10.7.7.7/24,gateway=10.7.7.1",
    });
    assert_eq!(service.next(), Said::Other("Done".into()));
    service.request(&Request::Network {
        spec: "eth0,10.8.8.8/24,gateway=10.8.8.1",
    });
    assert_eq!(service.next(), Said::Other("Done".into()));
    let script = script(
        "grep -c 10.7.7 /proc/net/fib_trie; grep -c 10.8.8.8 /proc/net/fib_trie; cat /proc/net/route",
    );
    let (_, out, _) = execute(&guest, &script).finish();
    assert!(out.starts_with("0\n"), "{out}");
    // Destination, gateway, flags (up and gateway): one default route, and that the new one.
    assert_eq!(out.matches("eth0\t00000000").count(), 1, "{out}");
    assert!(out.contains("eth0\t00000000\t0108080A\t0003"), "{out}");
    service.request(&Request::ReadClock);
    let Said::Other(clock) = service.next() else {
        panic!("no time");
    };
    assert!(clock.starts_with("Clock { realtime_ns: 1"), "{clock}");
    // Not in a container: that the answer says so is what is tested here.
    service.request(&Request::SetClock { realtime_ns: 1 });
    let failed = Said::Failed(Fault::Request, "set the clock: not permitted".into());
    assert_eq!(service.next(), failed);
    end(guest, service);
}
