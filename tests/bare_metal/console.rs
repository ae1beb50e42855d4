//! The serial port, both ways.

use crate::harness::{Guest, Test};
use kvmlet::ExitReason;

pub const TESTS: &[Test] = &[
    ("a_line_comes_out", line),
    ("serial_echo", serial_echo),
    (
        "serial_echo_of_more_than_the_fifo_holds",
        serial_echo_of_much,
    ),
    ("serial_interrupts", serial_interrupts),
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
