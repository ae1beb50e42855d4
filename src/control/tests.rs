use super::*;
use kvmlet_spec::{Failure, Outcome, Rate, RateLimit, Reason};
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
        proptest::sample::select(State::ALL.to_vec()).prop_map(Report::State),
        vec("[0-9a-f:./]{0,40}", 0..20).prop_map(Report::Published),
        vec("[0-9a-z:./,=]{0,60}", 0..16).prop_map(Report::Interfaces),
        any::<u64>().prop_map(|microseconds| Report::StoodStill { microseconds }),
        outcome.prop_map(|(reason, code, signal, failure)| {
            let mut outcome = Outcome::new(reason);
            (outcome.code, outcome.signal, outcome.failure) = (code, signal, failure);
            Report::Ended(Box::new(outcome))
        }),
    ]
}

fn limits() -> impl Strategy<Value = Order> {
    let rate = (1u64.., any::<u64>(), any::<u64>());
    let rate = rate.prop_map(|(rate, burst, once)| {
        let rate = Rate::per_second(rate).unwrap();
        rate.burst(burst).once(once)
    });
    let rates = (of(rate.clone()), of(rate));
    let devices = [Limited::Disk, Limited::Receive, Limited::Transmit];
    let devices = proptest::sample::select(devices.to_vec());
    (devices, any::<u8>(), rates).prop_map(|(device, place, (bandwidth, operations))| {
        let limit = RateLimit {
            bandwidth,
            operations,
        };
        let device = device(place);
        Order::Limit { device, limit }
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let orders = prop_oneof![
        Just(Order::Pause),
        Just(Order::Resume),
        Just(Order::Stats),
        Just(Order::Watch),
        Just(Order::Published),
        Just(Order::Save),
        Just(Order::Press),
        any::<[u8; 16]>().prop_map(|base| Order::SaveSince { base }),
        any::<u32>().prop_map(|mib| Order::Balloon { mib }),
        any::<u8>().prop_map(|disk| Order::Resize { disk }),
        limits(),
        Just(Order::Interfaces),
        any::<u8>().prop_map(|signal| Order::Signal { signal }),
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
        let message = request.encode();
        prop_assert!(message.len() <= REQUEST_BYTES);
        prop_assert_eq!(Request::decode(&message), Ok(request));
    }

    /// In whatever pieces messages come, they are read one by one, and nothing of the next one is taken.
    #[test]
    fn messages_on_a_stream_keep_their_bounds(
        messages in vec(vec(any::<u8>(), 1..200), 1..8),
        pieces in vec(1..50usize, 1..20),
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
        let (mut frame, mut at, mut read) = (Frame::new(200), 0, Vec::new());
        for piece in pieces.iter().cycle() {
            let end = (at + frame.lacks().min(*piece)).min(stream.len());
            if at == end {
                break;
            }
            read.extend(frame.add(&stream[at..end]).unwrap());
            at = end;
        }
        prop_assert_eq!(read, messages);
    }

    /// Whatever comes, no more is held than a message has.
    #[test]
    fn a_stream_of_anything_is_bounded(bytes in vec(any::<u8>(), 0..400)) {
        let mut frame = Frame::new(64);
        for byte in bytes {
            prop_assert!(frame.lacks() > 0);
            match frame.add(&[byte]) {
                Ok(Some(message)) => prop_assert!(!message.is_empty() && message.len() <= 64),
                Ok(None) => prop_assert!(frame.so_far().len() < 68),
                Err(_) => break,
            }
        }
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

/// The other end is closed with requests that it has not read.
#[test]
fn what_was_sent_before_the_end_is_heard() {
    let (one, other) = Channel::pair().unwrap();
    one.send(b"unread").unwrap();
    other.send(b"last words").unwrap();
    drop(other);
    assert_eq!(one.receive(64), Received::One(b"last words".to_vec()));
    assert_eq!(one.receive(64), Received::Last);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut connection = Connection::from(std::os::fd::OwnedFd::from(ours));
    let soon = std::time::Duration::from_secs(60);
    connection.request(Order::Stats, soon).unwrap();
    let report = Report::State(State::Ending);
    std::io::Write::write_all(&mut &theirs, &framed(&report.encode())).unwrap();
    drop(theirs);
    assert_eq!(connection.next(None).unwrap(), Some(report));
    let closed = connection.next(None).unwrap_err();
    assert!(matches!(closed, ConnectionError::Closed), "{closed}");
}

#[test]
fn who_asks_hears_its_own_answer() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut connection = Connection::from(std::os::fd::OwnedFd::from(ours));
    let supervisor = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut theirs = theirs;
        let request = |theirs: &mut std::os::unix::net::UnixStream| {
            let mut frame = Frame::new(REQUEST_BYTES);
            loop {
                let mut byte = [0];
                theirs.read_exact(&mut byte).unwrap();
                if let Some(message) = frame.add(&byte).unwrap() {
                    return Request::decode(&message).unwrap();
                }
            }
        };
        let tell = |theirs: &mut std::os::unix::net::UnixStream, report: Report| {
            theirs.write_all(&framed(&report.encode())).unwrap();
        };
        let first = request(&mut theirs);
        assert_eq!(first.order, Order::Stats);
        tell(&mut theirs, Report::Stats(b"{}".to_vec()));
        theirs.write_all(&framed(&[VERSION, 250, 1])).unwrap();
        let (to, refused) = (first.number, None);
        tell(&mut theirs, Report::Answer { to, refused });
        let second = request(&mut theirs);
        assert_ne!(second.number, first.number);
        let mut failure = Failure::default();
        failure.message = "it stands still already".into();
        let refused = Some(failure);
        tell(
            &mut theirs,
            Report::Answer {
                to: second.number,
                refused,
            },
        );
        // The third is not answered.
        request(&mut theirs);
        theirs
    });
    let long = std::time::Duration::from_secs(60);
    let told = connection.ask(Order::Stats, long).unwrap();
    assert_eq!(told, [Report::Stats(b"{}".to_vec())]);
    let error = connection.ask(Order::Pause, long).unwrap_err();
    assert_eq!(error.to_string(), "it stands still already");
    let short = std::time::Duration::from_millis(10);
    let error = connection.ask(Order::Resume, short).unwrap_err();
    assert!(matches!(error, ConnectionError::Late(_)), "{error}");
    drop(supervisor.join().unwrap());
    let error = connection.ask(Order::Resume, long).unwrap_err();
    assert!(matches!(error, ConnectionError::Closed), "{error}");
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
