//! Runs the real init as the first process of a PID namespace, in a root of the test's own whose
//! `/dev/port` is a plain file. The namespaces belong to a user namespace, so that nothing in them
//! can reach the host's ports, mounts, host name or network, whatever init does.

// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used)]

mod agent;
mod guest;
mod host;
mod image;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use guest::{Guest, PATIENCE, shell};
use kvmlet_contract::NetworkSpec;

/// Runs the guest and expects a proper end with this code; returns what was written.
#[track_caller]
fn expect(guest: Guest, code: u8) -> String {
    let outcome = guest.run();
    assert_eq!(
        (outcome.code, outcome.powered_off),
        (Some(code), true),
        "{outcome:?}"
    );
    outcome.output
}

#[track_caller]
fn expect_failure(guest: Guest, code: u8, message: &str) {
    let output = expect(guest, code);
    assert!(
        output
            .lines()
            .any(|line| line == format!("kvmlet-init: {message}")),
        "{output}"
    );
}

#[test]
fn the_exit_code_is_reported() {
    for (script, code) in [
        ("true", 0),
        ("exit 7", 7),
        ("kill -KILL $$", 137),
        ("exit 255", 255),
    ] {
        let Some(guest) = Guest::script(script) else {
            return;
        };
        expect(guest, code);
    }
}

/// As Ctrl-Z at a terminal does.
#[test]
fn a_service_that_was_stopped_as_a_job_goes_on() {
    let Some(guest) = Guest::script("kill -TSTP $$; exit 7") else {
        return;
    };
    expect(guest, 7);
}

#[test]
fn a_command_that_does_not_run_is_127_or_126() {
    let cases = [
        (
            "nope",
            127,
            "cannot run \"nope\": it is in no directory of PATH",
        ),
        (
            "/bin/nope",
            127,
            "cannot run \"/bin/nope\": no such file, or the interpreter that it names is missing",
        ),
        ("/etc", 126, "cannot run \"/etc\": permission denied"),
        (
            "/script",
            126,
            "cannot run \"/script\": not an executable file (does a script lack its #! line?)",
        ),
    ];
    for (program, code, message) in cases {
        let Some(guest) = Guest::with(|guest| guest.service.command = vec![program.into()]) else {
            return;
        };
        let guest = guest.file("script", "no interpreter");
        let permissions = PermissionsExt::from_mode(0o755);
        fs::set_permissions(guest.root.path().join("script"), permissions).unwrap();
        expect_failure(guest, code, message);
    }
}

#[test]
fn arguments_environment_and_directory_arrive() {
    let Some(guest) = Guest::with(|guest| {
        guest.service = shell(r#"printf '%s\n' "$0" "$1" "$A" "$PATH" "$HOME"; pwd"#);
        guest
            .service
            .command
            .extend(["a  b\"%".into(), "é\n;".into()]);
        guest.service.env = [("A", "x=y, z"), ("HOME", "/srv")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        guest.service.workdir = Some("/srv".into());
    }) else {
        return;
    };
    let output = expect(guest, 0);
    let expected = "a  b\"%\né\n;\nx=y, z\n\
                    /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/srv\n/srv\n";
    assert!(output.starts_with(expected), "{output}");
}

#[test]
fn the_service_file_counts_where_the_command_line_is_silent() {
    let file = r#"{"command": ["sh", "-c", "echo $A $B; pwd; exit 3"],
                   "env": {"A": "image", "B": "image"}, "workdir": "/tmp"}"#;
    let Some(guest) = Guest::new("kvmlet.env=B=line") else {
        return;
    };
    let output = expect(guest.file("etc/kvmlet/service.json", file), 3);
    assert!(output.starts_with("image line\n/tmp\n"), "{output}");

    let Some(guest) = Guest::script("echo $A; exit 4") else {
        return;
    };
    let output = expect(guest.file("etc/kvmlet/service.json", file), 4);
    assert!(output.starts_with("image\n"), "{output}");
}

#[test]
fn orphans_are_reaped() {
    // Two generations of orphans, which say so at their end; a zombie would stay in /proc.
    let script = "for i in 1 2 3; do (sh -c '(echo >> /tmp/ends) & echo >> /tmp/ends; exec true' &); done
                  until [ $(wc -l < /tmp/ends) = 6 ]; do sleep 0.1; done 2>/dev/null
                  for i in $(seq 200); do cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z' || exit 7; sleep 0.1; done";
    let Some(guest) = Guest::script(script) else {
        return;
    };
    expect(guest, 7);
}

#[test]
fn what_the_service_leaves_behind_ends_with_it() {
    let Some(guest) = Guest::script("(trap '' TERM HUP; sleep 1000) & exit 5") else {
        return;
    };
    let output = expect(guest, 5);
    assert!(!output.contains("some processes do not end"), "{output}");
}

#[test]
fn signals_go_to_the_service() {
    for (name, code) in [("TERM", 21), ("INT", 22), ("HUP", 23), ("QUIT", 24)] {
        let script = format!("trap 'exit {code}' {name}; echo ready; while :; do sleep 0.1; done");
        let Some(guest) = Guest::script(&script) else {
            return;
        };
        let outcome = guest.start().wait_for("ready").signal(name).wait();
        assert_eq!(outcome.code, Some(code), "{name}: {outcome:?}");
    }
}

#[test]
fn a_service_killed_by_a_forwarded_signal_says_so() {
    let Some(guest) = Guest::script("echo ready; exec sleep 1000") else {
        return;
    };
    let outcome = guest.start().wait_for("ready").signal("TERM").wait();
    assert_eq!(outcome.code, Some(143), "{outcome:?}");
}

#[test]
fn power_off_stops_the_service() {
    let cases = [
        // busybox halt and poweroff; a plain service dies of SIGTERM, which is no failure then.
        ("USR1", "echo ready; exec sleep 1000", 0),
        ("USR2", "echo ready; exec sleep 1000", 0),
        // One that ignores SIGTERM, as interactive shells do, is not waited for.
        (
            "USR2",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
            0,
        ),
        (
            "USR2",
            "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done",
            9,
        ),
    ];
    for (name, script, code) in cases {
        assert_ends(name, script, code);
    }
}

/// A service that is ready, and a signal to its init: the machine powers off in time, with that code.
fn assert_ends(signal: &str, script: &str, code: u8) {
    let Some(guest) = Guest::with(|guest| {
        guest.service = shell(script);
        guest.stop_timeout_s = Some(2 * PATIENCE.as_secs() as u32);
    }) else {
        return;
    };
    let guest = guest.start().wait_for("ready");
    let start = Instant::now();
    let outcome = guest.signal(signal).wait();
    assert_eq!(
        (outcome.code, outcome.powered_off),
        (Some(code), true),
        "{script}: {outcome:?}"
    );
    assert!(start.elapsed() < PATIENCE, "{script}");
}

#[test]
fn the_power_button_stops_the_service() {
    let cases = [
        // The host hears how it has ended.
        ("echo ready; exec sleep 1000", 143),
        ("trap '' TERM; echo ready; while :; do sleep 0.1; done", 137),
        (
            "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done",
            9,
        ),
    ];
    for (script, code) in cases {
        assert_ends("PWR", script, code);
    }
}

#[test]
fn no_signal_gives_a_service_more_time_to_end() {
    let script = "trap : TERM HUP; echo ready; while :; do sleep 0.1; done";
    for name in ["PWR", "USR2"] {
        let Some(guest) = Guest::with(|guest| {
            guest.service = shell(script);
            guest.stop_timeout_s = Some(2);
        }) else {
            return;
        };
        let mut running = guest.start().wait_for("ready").signal(name);
        let start = Instant::now();
        // Signals come all the time: the button pressed again, and what the service is sent.
        let mut signals = [name, "HUP"].into_iter().cycle();
        while !running.has_ended() {
            assert!(start.elapsed() < PATIENCE, "{name}");
            std::thread::sleep(Duration::from_millis(200));
            running = running.signal(signals.next().unwrap());
        }
        let took = start.elapsed();
        assert!(took > Duration::from_millis(1900), "{name}: {took:?}");
        let code = if name == "PWR" { 137 } else { 0 };
        let outcome = running.wait();
        assert_eq!(outcome.code, Some(code), "{name}: {outcome:?}");
    }
}

#[test]
fn the_network_is_configured() {
    let Some(guest) = Guest::with(|guest| {
        guest.service = shell(
            "cat /sys/class/net/eth0/mtu /etc/resolv.conf /proc/net/route; grep -c 10.9.8.7 /proc/net/fib_trie",
        );
        guest.networks.push(NetworkSpec {
            interface: "eth0".into(),
            address: [10, 9, 8, 7].into(),
            prefix: 24,
            gateway: Some([10, 9, 8, 1].into()),
            dns: vec![[9, 9, 9, 9].into()],
            mtu: Some(1400),
        });
    }) else {
        return;
    };
    let output = expect(guest, 0);
    assert!(output.starts_with("1400\nnameserver 9.9.9.9\n"), "{output}");
    // Destination, gateway, flags (up and gateway).
    assert!(
        output.contains("eth0\t00000000\t0108090A\t0003"),
        "{output}"
    );
}

#[test]
fn loopback_is_up() {
    let Some(guest) = Guest::script("grep -c 127.0.0.1 /proc/net/fib_trie") else {
        return;
    };
    expect(guest, 0);
}

#[test]
fn the_host_name_is_set() {
    let Some(mut guest) = Guest::script("cat /proc/sys/kernel/hostname") else {
        return;
    };
    guest.cmdline += " kvmlet.hostname=web-7";
    let output = expect(guest, 0);
    assert!(output.starts_with("web-7\n"), "{output}");
}

#[test]
fn what_cannot_be_done_is_said_and_is_125() {
    let arg = "kvmlet.arg=true";
    let cases = [
        (
            "kvmlet.agr=true".into(),
            "cannot understand the kernel command line: unknown key \"kvmlet.agr\" (known are \
             kvmlet.arg, kvmlet.env, kvmlet.workdir, kvmlet.user, kvmlet.hostname, kvmlet.net, \
             kvmlet.root, kvmlet.overlay, kvmlet.stop_timeout, kvmlet.console, kvmlet.agent)",
        ),
        (
            format!("{arg} kvmlet.workdir=/nowhere"),
            "cannot enter the working directory \"/nowhere\": no such file or directory",
        ),
        // Not mapped into the test's user namespace.
        (
            format!("{arg} kvmlet.user=70000"),
            "cannot become user 70000: invalid argument",
        ),
        (
            format!("{arg} kvmlet.net=eth9,10.0.0.2/24"),
            "cannot configure eth9: no such interface after 5 s",
        ),
        (
            format!("{arg} kvmlet.net=eth0,10.0.0.2/24,gateway=224.0.0.1"),
            "cannot route through 224.0.0.1 on eth0: invalid argument",
        ),
    ];
    for (cmdline, message) in cases {
        let Some(guest) = Guest::new(&cmdline) else {
            return;
        };
        expect_failure(guest, 125, message);
    }
}

#[test]
fn a_broken_service_file_is_named() {
    let Some(guest) = Guest::new("") else { return };
    expect_failure(
        guest.file("etc/kvmlet/service.json", "{\"comand\": []}"),
        125,
        "cannot understand /etc/kvmlet/service.json: unknown key \"comand\" (known are command, \
         env, workdir, user)",
    );
}

#[test]
fn it_is_no_command() {
    let output = Command::new(env!("CARGO_BIN_EXE_kvmlet-init"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        message,
        "kvmlet-init: cannot run: this is the init of a guest, not a command\n"
    );
}
