//! The serial port, both ways.

use crate::cli::{Running, kill, kvmlet};
use crate::harness::{Guest, Test};
use crate::stop::KINDS;
use kvmlet_sys::kvm::Execution;
use kvmlet_vmm::ExitReason;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("a_line_comes_out", line),
    ("serial_echo", serial_echo),
    (
        "serial_echo_of_more_than_the_fifo_holds",
        serial_echo_of_much,
    ),
    ("serial_interrupts", serial_interrupts),
    ("a_console_that_stays_silent_is_explained", silent),
    (
        "pins_are_edge_triggered_whatever_a_driver_asks",
        level_triggered,
    ),
];

fn line() {
    let (reason, output) = Guest::boot("ready").finish();
    assert_eq!(
        (reason, output.as_str()),
        (ExitReason::Shutdown { code: 0 }, "ready\n")
    );
}

fn serial_echo() {
    let guest = Guest::boot("serial_echo");
    guest.send(b"hello, worldq");
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 42 });
    assert!(output.contains("HELLO, WORLD"), "{output:?}");
}

fn serial_echo_of_much() {
    let guest = Guest::boot("serial_echo");
    let text = "abcdefghij".repeat(100);
    guest.send(text.as_bytes());
    guest.send(b"q");
    let (_, output) = guest.finish();
    assert!(output.contains(&text.to_uppercase()), "{output:?}");
}

fn serial_interrupts() {
    let guest = Guest::boot("serial_irq");
    guest.send(b"interruptq");
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 42 });
    assert!(output.contains("INTERRUPT"), "{output:?}");
    // One interrupt at least went through the I/O APIC.
}

/// Nothing comes for ten seconds, where something could: on a host that interprets guest kernels this is said.
fn silent() {
    let boot = |cmdline: &str, arguments: &[&str]| {
        let mut command = kvmlet("power_button");
        command.args(["--cmdline", cmdline]).args(arguments);
        Running::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()))
    };
    let explained = KINDS.map(|arguments| boot("console=ttyS0 silent=1", arguments));
    let others = [
        boot("silent=1", &[]),
        boot("console=ttyS0", &[]),
        boot("console=ttyS0", &["--no-jail"]),
    ];
    let stopped = boot("console=ttyS0 silent=1", &["--no-jail"]);
    std::thread::sleep(Duration::from_secs(1));
    kill(stopped.id() as i32, libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(11));
    kill(stopped.id() as i32, libc::SIGCONT);
    std::thread::sleep(Duration::from_secs(1));
    let said = |mut child: Running| {
        kill(child.id() as i32, libc::SIGTERM);
        let mut text = String::new();
        let stderr = child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
        text
    };
    for text in explained.map(said) {
        match Execution::detect().unwrap() {
            Execution::Hardware => assert_eq!(text, ""),
            Execution::Interpreted => {
                assert!(
                    text.contains("written nothing to its console for 10 s"),
                    "{text}"
                );
                assert!(text.contains("`kernels/build software-kvm`"), "{text}");
                assert_eq!(text.lines().count(), 1, "{text}");
            }
        }
    }
    for text in others.map(said).into_iter().chain([said(stopped)]) {
        assert_eq!(text, "");
    }
}

/// A driver may ask for it, and gets its interrupts as edges: after the first as well, which it has not ended by the
/// I/O APIC.
fn level_triggered() {
    let guest = Guest::boot_with("serial_irq", |config| config.cmdline("trigger=level"));
    for letter in ["x", "y", "z"] {
        guest.send(letter.as_bytes());
        guest.output.expect(&letter.to_uppercase());
    }
    guest.send(b"q");
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 42 });
    assert!(output.contains("level-triggered: false"), "{output:?}");
}
