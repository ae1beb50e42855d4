//! Networks of VMs that have ended, or were killed: the next one has their addresses, ports and taps at once.

use crate::cli::{Running, kill, kvmlet, text};
use crate::harness::Test;
use crate::harness::patience::eventually;
use crate::ports::{expect, lines, on_own_host};
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("what_a_network_had_is_the_next_ones_at_once", ours),
    ("a_tap_of_a_killed_vm_is_waited_for", taps),
];

const OURS: &[&str] = &["--net", "subnet=10.107.0.0/30", "-p", "8080:80"];

/// Runs a VM that ends by itself.
fn next(arguments: &[&str]) -> std::process::Output {
    kvmlet("power_off").args(arguments).output().unwrap()
}

/// Kills one that runs, with all that belongs to it, and does not wait for what it had.
fn kill_one(arguments: &[&str]) {
    let mut command = kvmlet("ready_stay");
    let mut vm = Running::spawn(command.args(arguments).stdout(Stdio::piped()));
    expect(&lines(vm.stdout.take().unwrap()), "ready");
    kill(vm.id() as i32, libc::SIGKILL);
}

fn succeeds(arguments: &[&str]) {
    let output = next(arguments);
    let error = text(&output.stderr);
    assert!(
        output.status.success() && !error.contains("error"),
        "{error}"
    );
}

fn of_host(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn ours() {
    on_own_host(|| {
        for _ in 0..4 {
            succeeds(OURS);
        }
        for _ in 0..4 {
            kill_one(OURS);
            succeeds(OURS);
        }
        eventually("nothing of them is left", || {
            !of_host("ip", &["-o", "link"]).contains("kvmlet")
                && of_host("nft", &["list", "tables"]).is_empty()
                && of_host("ls", &["/run/kvmlet/net"]) == "lock\nroll\n"
        });
    });
}

fn taps() {
    on_own_host(|| {
        of_host("ip", &["tuntap", "add", "dev", "own", "mode", "tap"]);
        of_host("ip", &["link", "set", "own", "up"]);
        let arguments = ["--net", "tap=own"];
        for _ in 0..4 {
            kill_one(&arguments);
            succeeds(&arguments);
        }
        // Nobody waits for one that lives.
        let mut command = kvmlet("ready_stay");
        let mut vm = Running::spawn(command.args(arguments).stdout(Stdio::piped()));
        expect(&lines(vm.stdout.take().unwrap()), "ready");
        let refused = next(&arguments);
        assert_eq!(refused.status.code(), Some(125));
        let error = text(&refused.stderr);
        assert!(error.contains("the tap `own` is in use"), "{error}");
        assert!(!error.contains("waiting"), "{error}");
    });
}
