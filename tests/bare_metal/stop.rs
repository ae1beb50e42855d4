//! Asking a guest to end, and how long it has.

use crate::cli::{Running, kill, kvmlet};
use crate::harness::{Guest, Test, patience::seconds};
use kvmlet_vmm::{Error, ExitReason};
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_guest_hears_that_it_is_to_end", hears),
    ("a_guest_without_a_driver_hears_nothing", deaf),
    ("a_signal_lets_the_service_end_by_itself", graceful),
    ("who_asks_twice_does_not_wait", twice),
    ("a_guest_that_does_not_end_is_cut", late),
    ("the_button_is_pressed_again", again),
];

fn hears() {
    let guest = Guest::boot_with("power_button", |c| c.cmdline("code=7 presses=2"));
    guest.output.expect("ready");
    guest.vm.pause().unwrap();
    let error = guest.vm.request_stop().unwrap_err();
    assert!(matches!(error, Error::Transition { .. }), "{error}");
    guest.vm.resume().unwrap();
    assert!(guest.vm.request_stop().unwrap());
    guest.output.expect("pressed");
    assert!(guest.vm.request_stop().unwrap());
    assert_eq!(guest.wait().unwrap(), ExitReason::Shutdown { code: 7 });
    assert!(guest.vm.request_stop().is_err());
}

fn deaf() {
    let guest = Guest::boot("spin");
    guest.output.expect(".");
    assert!(!guest.vm.request_stop().unwrap());
}

/// How the command is started, and whether it is a supervisor then.
pub const KINDS: [&[&str]; 2] = [&[], &["--no-jail"]];

/// A guest that hears the button, once it does.
fn listening(cmdline: &str, arguments: &[&str]) -> (Running, BufReader<ChildStdout>) {
    let mut command = kvmlet("power_button");
    command.args(["--cmdline", cmdline]).args(arguments);
    let mut child = Running::spawn(command.stdout(Stdio::piped()));
    let mut output = BufReader::new(child.stdout.take().unwrap());
    expect(&mut output, "ready");
    (child, output)
}

fn expect(output: &mut BufReader<ChildStdout>, line: &str) {
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    assert_eq!(text.trim_end(), line);
}

fn graceful() {
    for arguments in KINDS {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let (mut child, _output) = listening("code=7", arguments);
            kill(child.id() as i32, signal);
            assert_eq!(child.wait().unwrap().code(), Some(7), "{arguments:?}");
        }
        // That one wants no more than the end.
        let (mut child, _output) = listening("code=7", arguments);
        kill(child.id() as i32, libc::SIGQUIT);
        assert_eq!(child.wait().unwrap().code(), Some(131), "{arguments:?}");
    }
}

fn twice() {
    for arguments in KINDS {
        let (mut child, mut output) = listening("presses=0", arguments);
        let id = child.id() as i32;
        // As `timeout` and terminals do it: that is once.
        kill(id, libc::SIGTERM);
        kill(id, libc::SIGTERM);
        expect(&mut output, "pressed");
        std::thread::sleep(Duration::from_millis(600));
        assert!(child.try_wait().unwrap().is_none());
        let since = Instant::now();
        kill(id, libc::SIGINT);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(since.elapsed() < seconds(3));
    }
}

fn late() {
    for arguments in KINDS {
        let arguments = [arguments, &["--stop-timeout", "1"]].concat();
        let (mut child, _output) = listening("presses=0", &arguments);
        let since = Instant::now();
        kill(child.id() as i32, libc::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(143));
        // A second for its service, and five to power off.
        let took = since.elapsed();
        assert!(took >= Duration::from_secs(6), "{took:?}");
        assert!(took < seconds(20), "{took:?}");
    }
}

fn again() {
    let (mut child, _output) = listening("presses=3 code=9", &[]);
    kill(child.id() as i32, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(9));
}
