//! The service's end: asked for, told, and without anybody who listens.

use std::time::Instant;

use kvmlet_contract::channel::{Ended, ProcessSpec, Request, Role};

use super::{execute, running};
use crate::guest::PATIENCE;
use crate::host::{Said, guest, script};

#[test]
fn a_stop_is_told_step_by_step() {
    let Some((guest, host)) = guest() else { return };
    let spec = ProcessSpec {
        stop_signal: Some(1),
        stop_timeout_ms: Some(5000),
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
    assert!(start.elapsed() < PATIENCE, "it waits for the host");
}
