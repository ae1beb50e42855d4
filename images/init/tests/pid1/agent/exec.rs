//! Processes beside the service: how they start, and how they end.

use std::time::Instant;

use kvmlet_contract::channel::{Ended, Fault, ProcessSpec, Role};

use super::{end, execute, running};
use crate::guest::{PATIENCE, is_root};
use crate::host::{Said, guest_with, script};

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

/// As `docker exec`: what the image says is said of it, too, but for the command, and what is asked comes first.
#[test]
fn a_process_is_in_the_service_s_surroundings() {
    let file = r#"{"command": ["sh", "-c", "echo ready; cat; exit 7"], "env": {"A": "image", "B": "image"}, "workdir": "/srv", "user": "app"}"#;
    let prepare = |guest: crate::guest::Guest| {
        let passwd = if is_root() {
            "root:x:0:0::/root:/bin/sh\napp:x:1234:1234::/home/app:/bin/sh\n"
        } else {
            "app:x:0:0::/home/app:/bin/sh\n"
        };
        guest
            .file("etc/kvmlet/service.json", file)
            .file("etc/passwd", passwd)
    };
    let Some((guest, host)) = guest_with(prepare) else {
        return;
    };
    let service = ProcessSpec {
        input: true,
        ..ProcessSpec::default()
    };
    let mut service = host.start(&service, Role::Service);
    service.wait_for("ready");
    let told = "echo $A $B $HOME $PWD $(id -u)";
    let uid = if is_root() { 1234 } else { 0 };
    let (code, out, _) = execute(&guest, &script(told)).finish();
    assert_eq!(
        (code, out),
        (0, format!("image image /home/app /srv {uid}\n"))
    );
    let asked = ProcessSpec {
        variables: vec![(b"B".into(), b"asked".into())],
        workdir: Some(b"/tmp".into()),
        user: Some("0".into()),
        ..script(told)
    };
    let (_, out, _) = execute(&guest, &asked).finish();
    let home = if is_root() { "/root" } else { "/home/app" };
    assert_eq!(out, format!("image asked {home} /tmp 0\n"));
    // Nobody waits for what the service has put in its place.
    let spoilt = "rm /etc/kvmlet/service.json; mkfifo /etc/kvmlet/service.json";
    let spoilt = ProcessSpec {
        user: Some("0".into()),
        ..script(spoilt)
    };
    assert_eq!(execute(&guest, &spoilt).finish().0, 0);
    let (code, out, _) = execute(&guest, &script("echo $A; pwd")).finish();
    assert_eq!((code, &*out), (0, "\n/\n"));
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
    assert!(start.elapsed() < PATIENCE, "it waited for the others");
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
