//! The agent: a service described and heard over a channel, and processes beside it.

mod connections;
mod copy;
mod exec;
mod machine;
mod mounts;
mod service;
mod stop;
mod streams;
mod tools;

use kvmlet_contract::channel::{Ended, ProcessSpec, Request, Role};

use crate::guest::Running;
use crate::host::{Host, guest, script};

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
