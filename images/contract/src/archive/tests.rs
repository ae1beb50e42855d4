// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used)]

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::channel::{HEADER, MAX_PAYLOAD};
use proptest::prelude::*;

fn names() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1..=255u8, 1..=255)
        .prop_filter("it leads elsewhere", |bytes| name(bytes).is_some())
}

fn owners() -> impl Strategy<Value = Owner> {
    (any::<u32>(), any::<u32>(), 0..=PERMISSIONS).prop_map(|(uid, gid, mode)| Owner {
        uid,
        gid,
        mode,
    })
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut wire = vec![0; HEADER + MAX_PAYLOAD];
    let length = record.encode(&mut wire).unwrap();
    wire.truncate(length);
    wire
}

proptest! {
    #[test]
    fn records_come_back(
        kind in 0..11, own in names(), target in proptest::collection::vec(1..=255u8, 1..=MAX_TARGET),
        value in proptest::collection::vec(any::<u8>(), 1..=MAX_DATA), owner in owners(), seconds: i64,
        nanoseconds in 0..1_000_000_000u32, number in 0..1u64 << 62, device: u32,
    ) {
        let (name, target, value) = (&own[..], &target[..], &value[..]);
        let modified = Modified { seconds, nanoseconds };
        let record = match kind {
            0 => Record::Directory { name },
            1 => Record::File { name, size: number },
            2 => Record::Symlink { owner, modified, name, target },
            3 => Record::Node { owner: Owner { mode: 0o10644, ..owner }, modified, device, name },
            4 => Record::Data { offset: number, bytes: value },
            5 => Record::Owner(owner),
            6 => Record::Attribute { name, value },
            7 => Record::Leave(modified),
            8 => Record::Enter { name },
            9 => Record::Ahead { owner, modified },
            _ => Record::End,
        };
        let wire = encoded(&record);
        prop_assert_eq!(Record::decode(&wire), Ok(Some((record, wire.len()))));
        prop_assert_eq!(Record::decode(&wire[..wire.len() - 1]), Ok(None));
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(kind in 0..14u8, payload in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut wire = (payload.len() as u32).to_le_bytes().to_vec();
        wire.extend([kind, 0, 0, 0]);
        wire.extend(&payload);
        if let Ok(Some((record, length))) = Record::decode(&wire) {
            prop_assert_eq!(length, wire.len());
            prop_assert_eq!(encoded(&record), wire);
        }
    }
}

/// Nothing that a record names is anywhere but where it belongs.
#[test]
fn names_that_lead_elsewhere_are_refused() {
    let long = [b'x'; 256];
    let names: [&[u8]; 9] = [
        b"", b".", b"..", b"/", b"../x", b"a/b", b"/etc", b"a\0b", &long,
    ];
    for name in names {
        for record in [
            Record::Directory { name },
            Record::File { name, size: 1 },
            Record::Enter { name },
        ] {
            let wire = encoded(&record);
            let refused = Err(FrameError::Malformed {
                kind: record.kind(),
            });
            assert_eq!(Record::decode(&wire), refused, "{name:?}");
        }
    }
}

#[test]
fn what_no_file_can_have_is_refused() {
    let owner = Owner {
        uid: 0,
        gid: 0,
        mode: 0o100_755,
    };
    let modified = Modified {
        seconds: 0,
        nanoseconds: 1_000_000_000,
    };
    let records = [
        Record::File {
            name: b"x",
            size: 1 << 63,
        },
        Record::Data {
            offset: i64::MAX as u64,
            bytes: b"x",
        },
        Record::Data {
            offset: u64::MAX,
            bytes: b"x",
        },
        Record::Data {
            offset: 0,
            bytes: b"",
        },
        Record::Owner(owner),
        Record::Leave(modified),
    ];
    for record in records {
        let kind = record.kind();
        let wire = encoded(&record);
        assert_eq!(
            Record::decode(&wire),
            Err(FrameError::Malformed { kind }),
            "{record:?}"
        );
    }
}
