use super::*;
use kvmlet_spec::{Failure, Outcome, Reason};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn failures() -> impl Strategy<Value = Failure> {
    let text = "[^\\p{Cc}]{0,40}";
    let parts = (text, of(text), vec(text, 0..=8));
    parts.prop_map(|(message, help, causes)| {
        let mut cause = None;
        for message in causes {
            let mut failure = Failure::default();
            (failure.message, failure.cause) = (message, cause);
            cause = Some(Box::new(failure));
        }
        let mut failure = Failure::default();
        failure.message = message;
        failure.help = help;
        failure.cause = cause;
        failure
    })
}

fn reports() -> impl Strategy<Value = Report> {
    let reasons = [
        Reason::Shutdown,
        Reason::Panic,
        Reason::Signal,
        Reason::Failed,
    ];
    let reasons = proptest::sample::select(reasons.to_vec());
    let outcome = (
        reasons,
        any::<Option<u8>>(),
        any::<Option<i32>>(),
        of(failures()),
    );
    prop_oneof![
        Just(Report::Ready),
        (any::<u32>(), of(failures())).prop_map(|(to, refused)| Report::Answer { to, refused }),
        vec(any::<u8>(), 0..300).prop_map(Report::Stats),
        outcome.prop_map(|(reason, code, signal, failure)| {
            let mut outcome = Outcome::new(reason);
            (outcome.code, outcome.signal, outcome.failure) = (code, signal, failure);
            Report::Ended(Box::new(outcome))
        }),
    ]
}

fn requests() -> impl Strategy<Value = Request> {
    let orders = prop_oneof![
        Just(Order::Pause),
        Just(Order::Resume),
        Just(Order::Stats),
        any::<Option<u32>>().prop_map(|patience_ms| Order::Stop { patience_ms }),
    ];
    (any::<u32>(), orders).prop_map(|(number, order)| Request { number, order })
}

/// What a hostile sender makes of a message.
fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![
        reports().prop_map(|report| report.encode()),
        requests().prop_map(|request| request.encode()),
        vec(any::<u8>(), 0..64),
    ];
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (base, changes, any::<prop::sample::Index>()).prop_map(|(mut bytes, changes, end)| {
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes.truncate(end.index(bytes.len() + 1));
        bytes
    })
}

/// How much memory an error takes for its text.
fn bytes_of(failure: &Failure) -> usize {
    let help = failure.help.as_ref().map_or(0, String::len);
    let cause = failure.cause.as_deref().map_or(0, bytes_of);
    failure.message.len() + help + cause
}

proptest! {
    #[test]
    fn what_is_told_is_heard(report in reports()) {
        let message = report.encode();
        prop_assert!(message.len() <= LONGEST);
        prop_assert_eq!(Report::decode(&message), Ok(report));
    }

    #[test]
    fn what_is_asked_is_heard(request in requests()) {
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    /// Whatever comes is read without a panic, is not larger than it was, and holds nothing that steers a terminal.
    #[test]
    fn whatever_comes_is_read(message in spoiled()) {
        let _ = Request::decode(&message);
        if let Ok(Report::Ended(outcome)) = Report::decode(&message)
            && let Some(failure) = &outcome.failure
        {
            // A control character is replaced by one of three bytes.
            prop_assert!(bytes_of(failure) <= 3 * message.len());
            let text = format!("{failure:?}{}", failure.message);
            prop_assert!(!text.chars().any(|char| char.is_control() && char != '\n' && char != '\t'));
        }
    }
}

#[test]
fn a_message_that_is_not_one_says_why() {
    assert_eq!(Report::decode(&[]), Err(Malformed::Short));
    assert_eq!(Report::decode(&[9, 1]), Err(Malformed::Version(9)));
    assert_eq!(Report::decode(&[VERSION, 200]), Err(Malformed::Kind(200)));
    assert_eq!(Report::decode(&[VERSION, 1, 0]), Err(Malformed::Long));
    let mut ended = Report::Ended(Box::new(Outcome::new(Reason::Panic))).encode();
    ended[2] = 99;
    assert_eq!(Report::decode(&ended), Err(Malformed::Value(99)));
    // A chain of causes without end.
    let mut chain = Report::Answer {
        to: 1,
        refused: Some(Failure::default()),
    }
    .encode();
    chain.pop();
    chain.extend([1, 0, 0].repeat(1000));
    chain.push(0);
    assert_eq!(Report::decode(&chain), Err(Malformed::Long));
}

#[test]
fn what_is_too_long_is_cut() {
    let mut failure = Failure::default();
    failure.message = "ü".repeat(100_000);
    let mut outcome = Outcome::new(Reason::Failed);
    outcome.failure = Some(failure);
    let Ok(Report::Ended(heard)) = Report::decode(&Report::Ended(Box::new(outcome)).encode())
    else {
        panic!("not understood");
    };
    assert_eq!(heard.failure.unwrap().message, "ü".repeat(2048));
    assert_eq!(Report::Stats(vec![b' '; LONGEST]).encode().len(), 2);
    assert_eq!(
        Report::Stats(vec![b' '; LONGEST - 2]).encode().len(),
        LONGEST
    );
}

#[test]
fn a_channel_keeps_the_bounds_of_messages() {
    let (one, other) = Channel::pair().unwrap();
    assert_eq!(other.receive(LONGEST), Received::None);
    one.send(b"first").unwrap();
    one.send(&[7; LONGEST]).unwrap();
    assert_eq!(other.receive(LONGEST), Received::One(b"first".to_vec()));
    assert_eq!(other.receive(4), Received::One(vec![7; 4]));
    // Who does not read keeps nobody waiting.
    while one.try_send(&[0; 1024]).is_ok() {}
    let full = one.try_send(&[0; 1024]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    drop(one);
    while let Received::One(_) = other.receive(LONGEST) {}
    assert_eq!(other.receive(LONGEST), Received::Last);
    let gone = other.send(b"nobody").unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
}
