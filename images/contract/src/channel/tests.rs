// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{ConsoleSize, NetworkSpec};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use proptest::collection::vec as many;
use proptest::option;
use proptest::prelude::*;

extern crate std;

fn size() -> impl Strategy<Value = ConsoleSize> {
    (any::<u16>(), any::<u16>()).prop_map(|(columns, rows)| ConsoleSize { columns, rows })
}

fn output() -> impl Strategy<Value = Output> {
    prop_oneof![Just(Output::Stdout), Just(Output::Stderr)]
}

/// Bytes and text that outlive the messages that point into them, as a property test's values must.
fn bytes(max: usize) -> impl Strategy<Value = &'static [u8]> {
    many(any::<u8>(), 1..=max).prop_map(|bytes| &*bytes.leak())
}

fn request() -> impl Strategy<Value = Request<'static>> {
    prop_oneof![
        any::<u16>().prop_map(|version| Request::Hello { version }),
        any::<u32>().prop_map(|length| Request::Begin { length }),
        bytes(300).prop_map(|part| Request::Describe { part }),
        prop_oneof![Just(Role::Service), Just(Role::Exec), Just(Role::Tool)]
            .prop_map(|role| Request::Start { role }),
        Just(Request::Attach),
        bytes(MAX_PAYLOAD).prop_map(|bytes| Request::Input { bytes }),
        Just(Request::EndInput),
        (output(), any::<u32>()).prop_map(|(output, bytes)| Request::Credit { output, bytes }),
        size().prop_map(|size| Request::Resize { size }),
        (1..=64u8, any::<bool>()).prop_map(|(signal, group)| Request::Signal { signal, group }),
        (option::of(1..=64u8), option::of(0..u32::MAX))
            .prop_map(|(signal, timeout_ms)| Request::Stop { signal, timeout_ms }),
        Just(Request::ReadClock),
        any::<u64>().prop_map(|realtime_ns| Request::SetClock { realtime_ns }),
        bytes(MAX_ENTROPY).prop_map(|bytes| Request::AddEntropy { bytes }),
        "\\PC{0,80}".prop_map(|text: String| Request::Network { spec: text.leak() }),
        Just(Request::PowerOff),
        Just(Request::Renew),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Version),
        Just(Fault::Protocol),
        Just(Fault::Busy),
        (125..=127u8).prop_map(|exit_code| Fault::Start { exit_code }),
        Just(Fault::Request),
    ]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    prop_oneof![
        any::<u16>().prop_map(|version| Event::Hello { version }),
        any::<u32>().prop_map(|pid| Event::Started { pid }),
        (fault(), bytes(MAX_MESSAGE)).prop_map(|(fault, message)| Event::Failed { fault, message }),
        (output(), bytes(MAX_PAYLOAD - 1))
            .prop_map(|(output, bytes)| Event::Output { output, bytes }),
        output().prop_map(|output| Event::OutputEnded { output }),
        any::<u32>().prop_map(|bytes| Event::InputCredit { bytes }),
        Just(Event::InputClosed),
        prop_oneof![
            any::<u8>().prop_map(Ended::Code),
            (1..=64u8).prop_map(Ended::Signal)
        ]
        .prop_map(|ended| Event::Exited { ended }),
        prop_oneof![
            Just(StopStep::Killed),
            (1..=64u8).prop_map(|signal| StopStep::Signalled { signal })
        ]
        .prop_map(|step| Event::Stopping { step }),
        Just(Event::Done),
        any::<[u64; 2]>().prop_map(|[realtime_ns, boottime_ns]| Event::Clock {
            realtime_ns,
            boottime_ns
        }),
    ]
}

fn encoded<'a, M: Message<'a>>(message: &M) -> Vec<u8> {
    let mut out = vec![0; HEADER + MAX_PAYLOAD];
    let length = message.encode(&mut out).unwrap();
    out.truncate(length);
    out
}

/// A message comes back, alone and before others, and not before it is complete.
fn comes_back<'a, M: Message<'a> + PartialEq + std::fmt::Debug>(message: M) {
    let mut wire = encoded(&message);
    let length = wire.len();
    wire.extend([7; 3]);
    let wire = &*wire.leak();
    assert_eq!(M::decode(wire), Ok(Some((message, length))));
    for cut in [0, 1, HEADER - 1, length - 1] {
        assert_eq!(M::decode(&wire[..cut.min(length - 1)]), Ok(None), "{cut}");
    }
}

/// What can be read at all has one form only.
fn has_one_form<'a, M: Message<'a>>(wire: &'a [u8]) {
    if let Ok(Some((message, length))) = M::decode(wire) {
        assert_eq!(encoded(&message), &wire[..length]);
    }
}

/// Bytes that look like a frame more often than any bytes do.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let header = (0..40u8, prop_oneof![0..20u8, 0x80..0x90u8, any::<u8>()]);
    (header, many(prop_oneof![0..3u8, any::<u8>()], 0..60)).prop_map(|((length, kind), payload)| {
        let mut wire = vec![length, 0, 0, 0, kind, 0, 0, 0];
        wire.extend(payload);
        wire
    })
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        comes_back(request);
    }

    #[test]
    fn events_come_back(event in event()) {
        comes_back(event);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(wire in wire(), any in many(any::<u8>(), 0..64)) {
        for wire in [wire, any] {
            has_one_form::<Request>(&wire);
            has_one_form::<Event>(&wire);
        }
    }

    #[test]
    fn a_description_comes_back(spec in spec()) {
        assert_described(&spec, &spec.encode().unwrap());
    }

    #[test]
    fn a_damaged_description_is_refused_or_read(spec in spec(), at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut bytes = spec.encode().unwrap();
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(if cut { at } else { bytes.len() });
        if let Ok(read) = Description::parse(&bytes) {
            assert_eq!(read.arguments().count(), read.arguments);
            assert_eq!(read.variables().count(), read.variables);
            let _ = (read.groups().count(), read.mounts().count(), read.hosts().count(), read.networks().count());
        }
    }
}

fn string() -> impl Strategy<Value = Vec<u8>> {
    many(1..=255u8, 0..40)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß€:._-]{1,20}"
}

prop_compose! {
    fn mount()(
        flags: u32, filled: bool,
        [source, target, fstype, options] in [string(), string(), string(), string()],
    ) -> MountSpec {
        MountSpec { flags, source, target: [vec![b'/'], target].concat(), fstype, options, filled }
    }
}

prop_compose! {
    fn spec()(
        arguments in many(string(), 0..5),
        variables in many((many(b'A'..=b'Z', 1..5), string()), 0..5),
        workdir in option::of(string()), make_workdir: bool,
        user in option::of(text()), groups in many(text(), 0..3), hostname in option::of(text()),
        mounts in many(mount(), 0..3), hosts in many(text(), 0..3),
        stop_signal in option::of(1..=64u8), stop_timeout_ms: Option<u32>,
        terminal in option::of(size()), input: bool, detached: bool,
    ) -> ProcessSpec {
        let make_workdir = make_workdir && workdir.is_some();
        let networks = vec![NetworkSpec::from_parameter_value("eth0,10.0.0.2/24,gateway=10.0.0.1").unwrap()];
        ProcessSpec {
            arguments, variables, workdir, make_workdir, user, groups, hostname, mounts, hosts, networks,
            stop_signal, stop_timeout_ms, terminal, input, detached,
        }
    }
}

#[track_caller]
fn assert_described(spec: &ProcessSpec, bytes: &[u8]) {
    let read = Description::parse(bytes).unwrap();
    let owned = |mount: Mount<'_>| MountSpec {
        flags: mount.flags,
        source: mount.source.to_bytes().into(),
        target: mount.target.to_bytes().into(),
        fstype: mount.fstype.to_bytes().into(),
        options: mount.options.to_bytes().into(),
        filled: mount.filled,
    };
    let pair = |variable: &[u8]| -> (Vec<u8>, Vec<u8>) {
        let at = variable.iter().position(|byte| *byte == b'=').unwrap();
        (variable[..at].into(), variable[at + 1..].into())
    };
    let again = ProcessSpec {
        arguments: read.arguments().map(|it| it.to_bytes().into()).collect(),
        variables: read.variables().map(|it| pair(it.to_bytes())).collect(),
        workdir: read.workdir.map(|it| it.to_bytes().into()),
        make_workdir: read.make_workdir,
        user: read.user.map(Into::into),
        groups: read.groups().map(Into::into).collect(),
        hostname: read.hostname.map(Into::into),
        mounts: read.mounts().map(owned).collect(),
        hosts: read.hosts().map(Into::into).collect(),
        networks: read
            .networks()
            .map(|it| NetworkSpec::from_parameter_value(it).unwrap())
            .collect(),
        stop_signal: read.stop_signal,
        stop_timeout_ms: read.stop_timeout_ms,
        terminal: read.terminal,
        input: read.input,
        detached: read.detached,
    };
    assert_eq!(&again, spec);
    assert_eq!(read.arguments, spec.arguments.len());
    assert_eq!(read.variables, spec.variables.len());
}

#[test]
fn a_large_environment_arrives_whole() {
    let mut spec = ProcessSpec {
        arguments: vec![b"env".into(), b"\xff\n\"".into()],
        ..ProcessSpec::default()
    };
    for index in 0..100 {
        let name = format!("VARIABLE_{index}").into_bytes();
        spec.variables.push((name, "\nzwölf\u{1f980} =\"'".into()));
    }
    // Its name and the equals sign count, too.
    spec.variables
        .push((b"BIG".into(), vec![b'x'; MAX_STRING - 4]));
    assert_described(&spec, &spec.encode().unwrap());

    spec.variables[100].1.push(b'x');
    let error = spec.encode().unwrap_err();
    assert_eq!(
        error.to_string(),
        "variable 101 is longer than 131071 bytes, Linux's limit"
    );
}

#[test]
fn what_cannot_be_described_is_named() {
    let with = |change: fn(&mut ProcessSpec)| {
        let mut spec = ProcessSpec::default();
        change(&mut spec);
        spec.encode().unwrap_err().to_string()
    };
    assert_eq!(
        with(|it| it.arguments = vec![b"a".into(), b"b\0".into()]),
        "argument 2 has a NUL byte in it"
    );
    assert_eq!(
        with(|it| it.variables = vec![(b"A=B".into(), b"C".into())]),
        "variable 1 is not NAME=VALUE"
    );
    assert_eq!(
        with(|it| it.variables = vec![(b"".into(), b"C".into())]),
        "variable 1 is not NAME=VALUE"
    );
    assert_eq!(
        with(|it| it.arguments = vec![b"x".into(); MAX_FIELDS + 1]),
        "more than 16384 arguments and variables in all"
    );
    assert_eq!(
        with(|it| it.arguments = vec![vec![b'x'; 100_000]; 11]),
        "more than 1024 KiB in all"
    );
    assert_eq!(
        with(|it| it.stop_signal = Some(0)),
        "the stop signal cannot be one"
    );
    assert_eq!(
        with(|it| it.mounts.push(MountSpec {
            target: b"relative".into(),
            ..MountSpec::default()
        })),
        "the mount cannot be one"
    );
    assert_eq!(
        with(|it| it.user = Some(String::new())),
        "the user cannot be one"
    );
}

#[test]
fn what_breaks_the_rules_of_frames_is_refused() {
    let read = |bytes: &'static [u8]| Request::decode(bytes).unwrap_err().to_string();
    assert_eq!(
        read(b"GET / HTTP/1.1\r\n"),
        "a frame of 542393671 bytes, more than 16384 (is the other side kvmlet's?)"
    );
    // An event where a request is expected.
    assert_eq!(
        read(&[0, 0, 0, 0, 0x8a, 0, 0, 0]),
        "a frame of the unknown kind 0x8a"
    );
    let broken: [&[u8]; 6] = [
        // The header's zeros; something behind the last field; no magic number; no signal; no bytes; no such stream.
        &[0, 0, 0, 0, 16, 0, 0, 1],
        &[1, 0, 0, 0, 16, 0, 0, 0, 0],
        &[6, 0, 0, 0, 1, 0, 0, 0, b'K', b'v', b'm', b'l', 1, 0],
        &[2, 0, 0, 0, 10, 0, 0, 0, 65, 0],
        &[0, 0, 0, 0, 6, 0, 0, 0],
        &[5, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0],
    ];
    for bytes in broken {
        assert_eq!(
            Request::decode(bytes),
            Err(FrameError::Malformed { kind: bytes[4] })
        );
    }
}

#[test]
fn a_message_that_does_not_fit_is_not_written() {
    let bytes = [0; MAX_PAYLOAD + 1];
    let mut out = [0; HEADER + MAX_PAYLOAD + 1];
    assert_eq!(Request::Input { bytes: &bytes }.encode(&mut out), None);
    let fits = Request::Input {
        bytes: &bytes[..MAX_PAYLOAD],
    };
    assert_eq!(fits.encode(&mut out), Some(HEADER + MAX_PAYLOAD));
    assert_eq!(fits.encode(&mut out[..HEADER + MAX_PAYLOAD - 1]), None);
    assert_eq!(Request::PowerOff.encode(&mut out[..HEADER - 1]), None);
}

#[test]
fn a_disk_is_named_by_its_serial_number() {
    for (source, serial) in [
        (c"serial:vol-1", Some(&b"vol-1"[..])),
        (c"/dev/vdb", None),
        (c"tmpfs", None),
    ] {
        let mount = Mount {
            flags: 0,
            source,
            target: c"/",
            fstype: c"ext4",
            options: c"",
            filled: false,
        };
        assert_eq!(mount.serial(), serial);
    }
}

#[test]
fn versions_agree_on_the_smaller_one() {
    assert_eq!(agree(VERSION), Some(VERSION));
    assert_eq!(agree(VERSION + 5), Some(VERSION));
    assert_eq!(agree(OLDEST_VERSION - 1), None);
}

#[test]
fn an_end_is_told_as_shells_do() {
    assert_eq!(Ended::from_wait_status(7 << 8).exit_code(), 7);
    assert_eq!(Ended::from_wait_status(9), Ended::Signal(9));
    assert_eq!(Ended::Signal(9).exit_code(), 137);
}
