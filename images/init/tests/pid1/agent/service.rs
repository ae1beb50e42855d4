//! The service: what is described, what the image adds, and how it starts.

use kvmlet_contract::channel::{Ended, Fault, MAX_STRING, MountSpec, ProcessSpec, Request, Role};

use crate::host::{Said, guest, guest_with, script};

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
        filled: false,
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
