//! Any bytes as what host and guest send each other, in pieces as a stream hands them out: an error, or frames that have
//! one form only. What is described is refused or read as a whole.
#![no_main]

use kvmlet_contract::channel::{Description, Event, HEADER, MAX_PAYLOAD, Message, Request};
use libfuzzer_sys::fuzz_target;

/// Reads a stream to its end or to its first fault, `step` bytes at a time.
fn read<'a, M: Message<'a>>(bytes: &'a [u8], step: usize, mut see: impl FnMut(M)) {
    let mut out = [0; HEADER + MAX_PAYLOAD];
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = (end + step).min(bytes.len());
        loop {
            let unread = &bytes[start..end];
            match M::decode(unread) {
                Err(_) => return,
                Ok(None) => {
                    assert!(unread.len() < HEADER + MAX_PAYLOAD, "a frame without end");
                    break;
                }
                Ok(Some((message, length))) => {
                    assert_eq!(message.encode(&mut out), Some(length));
                    assert_eq!(&out[..length], &unread[..length]);
                    see(message);
                    start += length;
                }
            }
        }
    }
}

fn describe(bytes: &[u8]) {
    if let Ok(read) = Description::parse(bytes) {
        assert_eq!(read.arguments().count(), read.arguments);
        assert_eq!(read.variables().count(), read.variables);
        assert!(
            read.mounts()
                .all(|mount| mount.target.to_bytes().starts_with(b"/"))
        );
        let _ = (read.groups().count(), read.networks().count());
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&step, bytes)) = input.split_first() else {
        return;
    };
    let step = usize::from(step) + 1;
    let mut described = Vec::new();
    read::<Request>(bytes, step, |request| {
        if let Request::Describe { part } = request {
            described.extend_from_slice(part);
        }
    });
    read::<Event>(bytes, step, |_| {});
    describe(&described);
    describe(bytes);
});
