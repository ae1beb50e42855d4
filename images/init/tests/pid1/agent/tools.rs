//! The agent's own programs, in a guest whose image has none.

use std::time::Instant;

use kvmlet_contract::channel::{Fault, GuestProcess, PROCESSES, ProcessSpec, Role};

use super::{end, execute, running};
use crate::guest::{PATIENCE, Running};
use crate::host::{Host, Said, script};

fn tool(guest: &Running, name: &str) -> Host {
    let spec = ProcessSpec {
        arguments: vec![name.into()],
        ..ProcessSpec::default()
    };
    Host::connect(guest).start(&spec, Role::Tool)
}

/// Of each process of the guest its number, its parent's, its user, CPU time, memory and command.
fn listed(guest: &Running) -> Vec<(u32, u32, u32, u64, u64, String)> {
    let (code, out, err) = tool(guest, PROCESSES).finish();
    assert_eq!((code, &*err), (0, ""));
    let processes = out.lines().map(|line| {
        let process = GuestProcess::parse(line).ok_or(line).unwrap();
        (
            process.pid,
            process.parent,
            process.uid,
            process.cpu_ms,
            process.rss_kib,
            process.command.to_string(),
        )
    });
    processes.collect()
}

#[test]
fn processes_are_listed() {
    let Some((guest, service)) = running() else {
        return;
    };
    let mut busy = execute(
        &guest,
        &script("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo go; exec sleep 77.5"),
    );
    let number = busy.started();
    busy.wait_for("go");
    // It goes on to be `sleep`, soon, and the service's shell to run `cat`; what has just been executed has no memory yet.
    let start = Instant::now();
    let (processes, sleeper) = loop {
        let found = listed(&guest);
        let named = |command: &str| found.iter().find(|it| it.5 == command).cloned();
        let sleeper = named("sleep 77.5").filter(|it| it.4 >= 100);
        if let (Some(sleeper), Some(_)) = (sleeper, named("cat")) {
            break (found, sleeper);
        }
        assert!(start.elapsed() < PATIENCE, "{found:?}");
    };
    let (pid, parent, uid, cpu_ms, rss_kib, _) = sleeper;
    assert_eq!((pid, parent, uid), (number, 1, 0));
    assert!(cpu_ms >= 10, "{cpu_ms} ms");
    assert!((100..100_000).contains(&rss_kib), "{rss_kib} KiB");
    let commands = |pid| processes.iter().find(|it| it.0 == pid).map(|it| &*it.5);
    assert_eq!(commands(1), Some("/init"));
    // The service and what it waits for, and not the tool itself.
    for (command, is_there) in [
        ("sh -c echo ready; cat; exit 7", true),
        ("cat", true),
        (PROCESSES, false),
    ] {
        let found = processes.iter().any(|it| it.5 == command);
        assert_eq!(found, is_there, "{processes:?}");
    }
    end(guest, service);
}

#[test]
fn a_tool_that_it_has_not_is_named() {
    let Some((guest, service)) = running() else {
        return;
    };
    let mut host = tool(&guest, "sh");
    let message = "run the agent's tool \"sh\": it has none of that name";
    let fault = Fault::Start { exit_code: 125 };
    assert_eq!(host.next(), Said::Failed(fault, message.into()));
    end(guest, service);
}
