//! Clients of all kinds, and a guest that is played here.

use super::*;
use crate::v1::streams::Manners;
use kvmlet_control::agent::channel::{Fault, Message, OUTPUT_WINDOW, ProcessSpec, Role, VERSION};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// The guest's end of the connection.
struct Guest {
    stream: UnixStream,
    inbound: Vec<u8>,
}

/// A request, as far as these tests look at it.
#[derive(Debug, PartialEq)]
enum Asked {
    Input(Vec<u8>),
    EndInput,
    Resize(u16, u16),
    Signal(u8, bool),
    Credit(usize, usize),
    Other,
}

impl Guest {
    fn say(&mut self, event: &Event<'_>) {
        let mut bytes = vec![0; 20 << 10];
        let length = event.encode(&mut bytes).unwrap();
        self.stream.write_all(&bytes[..length]).unwrap();
    }

    /// What it is asked for next; none when the connection has ended.
    fn hear(&mut self) -> Option<Asked> {
        loop {
            if let Some((request, length)) = Request::decode(&self.inbound).unwrap() {
                let asked = match request {
                    Request::Input { bytes } => Asked::Input(bytes.into()),
                    Request::EndInput => Asked::EndInput,
                    Request::Resize { size } => Asked::Resize(size.columns, size.rows),
                    Request::Signal { signal, group } => Asked::Signal(signal, group),
                    Request::Credit { output, bytes } => {
                        Asked::Credit(output.index(), bytes as usize)
                    }
                    _ => Asked::Other,
                };
                self.inbound.drain(..length);
                return Some(asked);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.inbound.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// What it is asked for beside credit.
    fn asked(&mut self) -> Option<Asked> {
        loop {
            match self.hear() {
                Some(Asked::Credit(..) | Asked::Other) => {}
                other => return other,
            }
        }
    }

    fn write(&mut self, output: Output, bytes: &[u8]) {
        self.say(&Event::Output { output, bytes });
    }

    fn exit(&mut self, ended: Ended) {
        self.say(&Event::Exited { ended });
    }
}

/// A program that runs in that guest, for that client.
fn runs(way: Way) -> (Guest, UnixStream, JoinHandle<()>) {
    let (host, guest) = UnixStream::pair().unwrap();
    let mut guest = Guest {
        stream: guest,
        inbound: Vec::new(),
    };
    let mut agent = Agent::new(host.into());
    let spec = ProcessSpec {
        arguments: vec![b"true".into()],
        input: true,
        ..ProcessSpec::default()
    };
    agent.client().start(&spec, Role::Exec).unwrap();
    guest.say(&Event::Hello { version: VERSION });
    guest.say(&Event::Started { pid: 7 });
    agent.started(std::time::Duration::from_secs(60)).unwrap();
    let (client, served) = UnixStream::pair().unwrap();
    served.set_nonblocking(true).unwrap();
    let mut peer = Peer::new(served.into(), Vec::new(), Manners::default());
    let session = std::thread::spawn(move || {
        Session::new(agent, way, "web").run(&mut peer);
        peer.finish();
    });
    (guest, client, session)
}

/// All frames that come, up to the end of the connection.
fn told(client: &mut UnixStream) -> Vec<(u8, Vec<u8>)> {
    let (mut bytes, mut all) = (Vec::new(), Vec::new());
    client.read_to_end(&mut bytes).unwrap();
    let mut rest = &bytes[..];
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let [kind, 0, 0, 0, a, b, c, d] = *header else {
            panic!("{header:?}");
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        all.push((kind, behind[..length].to_vec()));
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
    all
}

fn last(told: &[(u8, Vec<u8>)]) -> (u8, serde_json::Value) {
    let (kind, content) = told.last().unwrap();
    (*kind, serde_json::from_slice(content).unwrap())
}

#[test]
fn what_a_program_writes_is_told_with_its_end() {
    let (mut guest, mut client, session) = runs(Way::frames(false));
    guest.write(Output::Stdout, b"out\n");
    guest.write(Output::Stderr, b"err\xff");
    guest.exit(Ended::Signal(9));
    let all = told(&mut client);
    assert_eq!(all[0], (frames::STDOUT, b"out\n".to_vec()));
    assert_eq!(all[1], (frames::STDERR, b"err\xff".to_vec()));
    let (kind, ended) = last(&all);
    let wanted = serde_json::json!({ "exit_code": 137, "signal": 9 });
    assert_eq!((kind, ended), (frames::ENDED, wanted));
    session.join().unwrap();
}

#[test]
fn lines_are_json() {
    let (mut guest, mut client, session) = runs(Way::lines());
    guest.write(Output::Stdout, b"a\xc3");
    guest.write(Output::Stderr, b"\xff");
    guest.write(Output::Stdout, b"\xa9\n");
    guest.write(Output::Stdout, b"\xc3");
    guest.exit(Ended::Code(3));
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let wanted = serde_json::json!([
        { "stream": "stdout", "text": "a" },
        { "stream": "stderr", "base64": "/w==" },
        { "stream": "stdout", "text": "\u{e9}\n" },
        { "stream": "stdout", "base64": "ww==" },
        { "exit_code": 3 },
    ]);
    assert_eq!(serde_json::Value::from(lines), wanted);
    session.join().unwrap();
}

#[test]
fn what_a_client_says_is_done_in_its_order() {
    let (mut guest, mut client, session) = runs(Way::frames(true));
    let mut wire = frames::frame(0, b"one");
    wire.extend(frames::frame(3, &[0, 80, 0, 24]));
    wire.extend(frames::frame(4, &[10]));
    wire.extend(frames::frame(0, b"two"));
    client.write_all(&wire).unwrap();
    // That the client says no more is its input's end, behind all that it has said.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    guest.say(&Event::InputCredit { bytes: 5 });
    let mut input = Vec::new();
    let mut others = Vec::new();
    while input.len() < 5 {
        match guest.asked().unwrap() {
            Asked::Input(bytes) => input.extend(bytes),
            other => others.push(other),
        }
    }
    assert_eq!(others, [Asked::Resize(80, 24), Asked::Signal(10, true)]);
    guest.say(&Event::InputCredit { bytes: 100 });
    assert_eq!(guest.asked(), Some(Asked::Input(b"o".into())));
    assert_eq!(input, b"onetw");
    assert_eq!(guest.asked(), Some(Asked::EndInput));
    guest.exit(Ended::Code(0));
    assert_eq!(last(&told(&mut client)).1["exit_code"], 0);
    session.join().unwrap();
}

#[test]
fn a_client_that_goes_hangs_its_program_up() {
    for way in [Way::frames(true), Way::frames(false), Way::lines()] {
        let (mut guest, client, session) = runs(way);
        guest.write(Output::Stdout, b"x");
        drop(client);
        // Whatever it was asked for before, the connection ends.
        while guest.hear().is_some() {}
        session.join().unwrap();
    }
}

#[test]
fn who_says_nonsense_is_told_and_hung_up() {
    for (input, wire) in [
        (true, frames::frame(1, b"x")),
        (false, frames::frame(0, b"x")),
        (false, frames::frame(4, &[0])),
    ] {
        let (mut guest, mut client, session) = runs(Way::frames(input));
        client.write_all(&wire).unwrap();
        assert_eq!(guest.asked(), None);
        let (kind, problem) = last(&told(&mut client));
        assert_eq!((kind, &problem["status"]), (frames::PROBLEM, &400.into()));
        session.join().unwrap();
    }
}

#[test]
fn a_guest_that_fails_is_told_of() {
    type Fail = fn(&mut Guest);
    let fails: [(Fail, u16, &str); 4] = [
        (|_| {}, 409, "has ended before the program"),
        (
            |guest| guest.stream.write_all(&[0xff; 64]).unwrap(),
            422,
            "sent",
        ),
        (
            |guest| guest.say(&Event::InputCredit { bytes: u32::MAX }),
            422,
            "more input than there can be",
        ),
        (
            |guest| {
                let (fault, message) = (Fault::Request, &b"go on\x1b"[..]);
                guest.say(&Event::Failed { fault, message });
            },
            422,
            "cannot go on\u{fffd}",
        ),
    ];
    for (fail, status, part) in fails {
        let (mut guest, mut client, session) = runs(Way::frames(false));
        fail(&mut guest);
        guest.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let (kind, problem) = last(&told(&mut client));
        assert_eq!(
            (kind, &problem["status"]),
            (frames::PROBLEM, &status.into())
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail}");
        session.join().unwrap();
    }
}

#[test]
fn who_does_not_read_holds_up_the_program_and_nobody_else() {
    const MOST: usize = MOST_UNREAD + (3 * OUTPUT_WINDOW as usize) + (1 << 20);
    let (mut guest, mut client, session) = runs(Way::frames(false));
    guest.stream.set_nonblocking(false).unwrap();
    let quiet = std::time::Duration::from_millis(300);
    guest.stream.set_read_timeout(Some(quiet)).unwrap();
    let (mut credit, mut written) = (0, 0);
    loop {
        match guest.hear() {
            Some(Asked::Credit(0, bytes)) => credit += bytes,
            Some(_) => {}
            // Nothing is granted any more.
            None => break,
        }
        while credit > 0 {
            let count = credit.min(8192);
            guest.write(Output::Stdout, &vec![1; count]);
            (credit, written) = (credit - count, written + count);
        }
        assert!(written < MOST, "it is held without a bound");
    }
    // What it has written comes, as soon as somebody reads.
    guest.exit(Ended::Code(0));
    let all = told(&mut client);
    let outputs = all.iter().filter(|(kind, _)| *kind == frames::STDOUT);
    assert_eq!(
        outputs.map(|(_, bytes)| bytes.len()).sum::<usize>(),
        written
    );
    assert_eq!(last(&all).1["exit_code"], 0);
    session.join().unwrap();
}
