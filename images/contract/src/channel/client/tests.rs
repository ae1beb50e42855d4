// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::channel::{Ended, Fault};
use alloc::string::ToString;
use alloc::vec;
use proptest::collection::vec as many;
use proptest::prelude::*;

fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut out = vec![0; HEADER + MAX_PAYLOAD];
    let length = message.encode(&mut out).unwrap();
    out.truncate(length);
    out
}

const HELLO: Event<'_> = Event::Hello { version: VERSION };
const STARTED: Event<'_> = Event::Started { pid: 7 };
const EXITED: Event<'_> = Event::Exited {
    ended: Ended::Code(0),
};

fn started() -> Client {
    let mut client = Client::new();
    client.start(&ProcessSpec::default(), Role::Exec).unwrap();
    hear(&mut client, &[HELLO, STARTED]).unwrap();
    client
}

/// Has a client hear events, all of which it has to hand out.
fn hear(client: &mut Client, events: &[Event<'_>]) -> Result<(), ClientError> {
    for event in events {
        let bytes = encoded(event);
        assert_eq!(client.received(&bytes), bytes.len());
        assert_eq!(client.next_event()?, Some(*event));
        assert_eq!(client.next_event()?, None);
    }
    Ok(())
}

#[track_caller]
fn assert_refused(events: &[Event<'_>], message: &str) {
    let mut client = Client::new();
    let error = hear(&mut client, events).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_refused(
        &[STARTED],
        "the guest's agent said something before its greeting where it cannot",
    );
    assert_refused(
        &[HELLO, HELLO],
        "the guest's agent said a greeting where it cannot",
    );
    assert_refused(
        &[HELLO, EXITED],
        "the guest's agent said that a process has ended where it cannot",
    );
    assert_refused(
        &[HELLO, STARTED, EXITED, Event::InputClosed],
        "the guest's agent said something of a process where it cannot",
    );
    assert_refused(
        &[Event::Hello { version: 0 }],
        "the guest's agent speaks version 0 and no newer one, the host 3",
    );
}

#[test]
fn more_than_was_granted_is_refused() {
    let bytes = &[0; 8 << 10][..];
    let output = Output::Stderr;
    let mut client = started();
    for _ in 0..8 {
        hear(&mut client, &[Event::Output { output, bytes }]).unwrap();
    }
    let one = Event::Output {
        output,
        bytes: &[0],
    };
    let flooded = Err(ClientError::Flooded(output));
    assert_eq!(hear(&mut client, &[one]), flooded);
    // The other stream has its own.
    let output = Output::Stdout;
    hear(&mut client, &[Event::Output { output, bytes }]).unwrap();
    // As has one of which half was taken.
    let mut client = started();
    for _ in 0..20 {
        hear(&mut client, &[Event::Output { output, bytes }]).unwrap();
        client.taken(output, bytes.len());
    }
    hear(&mut client, &[Event::InputCredit { bytes: MAX_CREDIT }]).unwrap();
    let more = Event::InputCredit { bytes: 1 };
    assert_eq!(hear(&mut client, &[more]), Err(ClientError::Credit));
}

#[test]
fn input_waits_for_credit() {
    let mut client = started();
    assert_eq!(client.input(b"early"), 0);
    hear(&mut client, &[Event::InputCredit { bytes: 3 }]).unwrap();
    client.sent(client.outgoing().len());
    assert_eq!(client.input(b"hello"), 3);
    assert_eq!(
        client.outgoing(),
        encoded(&Request::Input { bytes: b"hel" })
    );
    assert_eq!(client.input_room(), 0);
}

#[test]
fn an_agent_that_takes_nothing_is_noticed() {
    let mut client = Client::new();
    let error = (0..1_000_000)
        .find_map(|_| client.request(&Request::ReadClock).err())
        .unwrap();
    assert_eq!(error, ClientError::Backlog);
    assert!(client.outgoing().len() <= MAX_BACKLOG);
}

/// It floods, and does not hear what it is granted.
#[test]
fn a_guest_that_only_speaks_is_left() {
    let output = Output::Stdout;
    let bytes = &[0; 8 << 10][..];
    let mut client = started();
    client.sent(usize::MAX);
    let flood = || {
        hear(&mut client, &[Event::Output { output, bytes }])?;
        client.taken(output, bytes.len());
        assert!(client.outgoing().len() < 2 * GRANT_BACKLOG);
        Ok(())
    };
    let error = core::iter::repeat_with(flood)
        .take(10_000)
        .find_map(Result::err);
    assert_eq!(error, Some(ClientError::Flooded(output)));
}

#[test]
fn a_failure_to_start_is_handed_out() {
    let mut client = Client::new();
    let failed = Event::Failed {
        fault: Fault::Start { exit_code: 127 },
        message: b"run \"nope\": it is in no directory of PATH",
    };
    hear(&mut client, &[HELLO, failed]).unwrap();
}

proptest! {
    /// Whatever a guest sends, in whatever pieces, the client's memory has its bounds.
    #[test]
    fn any_bytes_are_survived(pieces in many(many(prop_oneof![0..3u8, 0x80..0x8cu8, any::<u8>()], 0..40), 0..20), greeted: bool) {
        let mut client = if greeted { started() } else { Client::new() };
        for piece in pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let count = client.received(rest);
                rest = &rest[count..];
                loop {
                    match client.next_event() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(client.room() > 0 && count > 0);
                prop_assert!(client.inbound.len() <= HEADER + MAX_PAYLOAD);
            }
        }
    }
}
