// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used)]

use super::super::channel::{Ended, Event, Output, ProcessSpec, Request};
use super::super::tests::{PATIENCE, guest};
use super::*;
use std::io::{Read, Write};

#[test]
fn a_program_is_heard_and_spoken_to_as_it_comes() {
    let (agent, guest) = guest(|mut guest| {
        guest.start();
        let size = |request: Request<'_>| match request {
            Request::Resize { size } => Some((size.columns, size.rows)),
            _ => None,
        };
        assert_eq!(guest.hear(size), (100, 30));
        guest.say(&Event::InputCredit { bytes: 3 });
        let mut input = Vec::new();
        while input.len() < 3 {
            input.extend(guest.hear(|request| match request {
                Request::Input { bytes } => Some(bytes.to_vec()),
                _ => None,
            }));
        }
        guest.say(&Event::Output {
            output: Output::Stderr,
            bytes: &input,
        });
        guest.say(&Event::InputClosed);
        guest.hear(|request| matches!(request, Request::EndInput).then_some(()));
        let signal = |request: Request<'_>| match request {
            Request::Signal { signal, group } => Some((signal, group)),
            _ => None,
        };
        assert_eq!(guest.hear(signal), (15, true));
        let ended = Ended::Signal(15);
        guest.say(&Event::Exited { ended });
    });
    let mut program = Execution::start(agent, &ProcessSpec::default(), PATIENCE).unwrap();
    // Nothing is said, and nothing taken, before the guest does.
    assert_eq!(program.input(b"some").unwrap(), 0);
    assert_eq!(program.next(Some(Instant::now())).unwrap(), None);
    let (columns, rows) = (100, 30);
    program.resize(ConsoleSize { columns, rows }).unwrap();
    let deadline = || Some(Instant::now() + PATIENCE);
    assert_eq!(program.next(deadline()).unwrap(), Some(Said::Ready));
    assert_eq!(program.input(b"some").unwrap(), 3);
    let (output, bytes) = (Output::Stderr, b"som".to_vec());
    let said = Said::Output { output, bytes };
    assert_eq!(program.next(deadline()).unwrap(), Some(said));
    assert_eq!(program.next(deadline()).unwrap(), Some(Said::InputClosed));
    program.end_input().unwrap();
    program.signal(15).unwrap();
    let ended = Said::Ended(Ended::Signal(15));
    assert_eq!(program.next(None).unwrap(), Some(ended));
    guest.join().unwrap();
}

#[test]
fn a_guest_that_is_not_reached_is_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("vsock");
    let why = |patience| Agent::reach(&path, patience).unwrap_err().to_string();
    assert!(why(PATIENCE).contains("No such file"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(why(Duration::ZERO).contains("has not answered in 0 s"));
    let answer = |text: &'static [u8]| {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            // Whoever has given up is still in the queue.
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut asked = [0; 13];
                stream.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"CONNECT 1023\n");
                let _ = stream.write_all(text);
            }
        })
    };
    let answering = answer(b"OK 1073741824\n");
    Agent::reach(&path, PATIENCE).unwrap();
    answering.join().unwrap();
    let mut gone = std::os::unix::net::UnixStream::connect(&path).unwrap();
    gone.write_all(b"CONNECT 1023\n").unwrap();
    let answering = answer(b"");
    assert!(why(PATIENCE).contains("listens to nobody"));
    answering.join().unwrap();
    gone.write_all(b"x").unwrap_err();
    let mut gone = std::os::unix::net::UnixStream::connect(&path).unwrap();
    gone.write_all(b"CONNECT 1023\n").unwrap();
    let answering = answer(b"NO\n");
    assert!(why(PATIENCE).contains("not answer as it should"));
    answering.join().unwrap();
}
