//! What an agent sends, well and badly.

use super::archive::write;
use super::records::{Changes, Kind};
use super::*;
use kvmlet_control::agent::archive::{Modified, Owner, Record};
use kvmlet_control::agent::channel::{HEADER, MAX_PAYLOAD, OPAQUE, ORIGIN};
use proptest::prelude::*;
use std::io::Read;

const OWNER: Owner = Owner {
    uid: 7,
    gid: 8,
    mode: 0o4751,
};
const TIME: Modified = Modified {
    seconds: 1_000_000_000,
    nanoseconds: 5,
};
const AHEAD: Record<'_> = Record::Ahead {
    owner: OWNER,
    modified: TIME,
};

fn stream(records: &[Record<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for record in records {
        let mut wire = [0; HEADER + MAX_PAYLOAD];
        let length = record.encode(&mut wire).unwrap();
        all.extend_from_slice(&wire[..length]);
    }
    all
}

fn directory(name: &[u8]) -> [Record<'_>; 2] {
    [Record::Directory { name }, AHEAD]
}

const END: [Record<'_>; 2] = [Record::Owner(OWNER), Record::Leave(TIME)];

fn node(name: &[u8], mode: u32, device: u32) -> Record<'_> {
    Record::Node {
        owner: Owner { mode, ..OWNER },
        modified: TIME,
        device,
        name,
    }
}

/// A root with one of each kind.
fn some() -> Vec<Record<'static>> {
    let attribute = |name, value| Record::Attribute { name, value };
    let symlink = Record::Symlink {
        owner: Owner { mode: 0, ..OWNER },
        modified: TIME,
        name: b"link",
        target: b"../../etc/passwd",
    };
    let mut all = directory(b"directory").to_vec();
    all.extend(directory(b"d"));
    all.push(attribute(OPAQUE, b"y"));
    all.push(attribute(b"user.x", b"\0v"));
    all.extend([
        Record::File {
            name: b"f",
            size: 100_000,
        },
        AHEAD,
    ]);
    all.push(attribute(ORIGIN, b"?"));
    all.push(Record::Data {
        offset: 70_000,
        bytes: b"middle",
    });
    all.extend(END);
    all.push(node(b"gone", 0o020_000, 0));
    all.extend(END);
    all.extend([
        symlink,
        node(b"pipe", 0o010_644, 0),
        node(b"null", 0o020_666, 0x103),
    ]);
    all.push(node(b".wh.user", 0o010_644, 0));
    all.extend(directory(b"tmp"));
    all.extend(END);
    all.extend(directory(b"etc"));
    all.extend([
        Record::File {
            name: b"hosts",
            size: 1,
        },
        AHEAD,
    ]);
    all.extend(END);
    all.extend(END);
    all.extend(END);
    all.push(Record::End);
    all
}

#[test]
fn changes_are_an_archive_of_a_layer() {
    let bytes = stream(&some());
    let archived = write(&mut Changes::new(&bytes[..]), tempfile::tempfile().unwrap()).unwrap();
    let mut whole = Vec::new();
    (&archived.file).read_to_end(&mut whole).unwrap();
    assert_eq!(kvmlet_image::Digest::of(&whole), archived.digest);
    let mut told = Vec::new();
    for entry in tar::Archive::new(&whole[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let attributes: Vec<_> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|it| it.unwrap().key().unwrap().to_owned())
            .collect();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let kind = entry.header().entry_type();
        let middle = content.windows(6).position(|it| it == b"middle");
        told.push((path, kind, content.len(), middle, attributes));
    }
    use tar::EntryType as E;
    let x = vec!["SCHILY.xattr.user.x".to_owned()];
    let expected = [
        ("d/", E::Directory, 0, None, x),
        ("d/.wh..wh..opq", E::Regular, 0, None, vec![]),
        ("d/f", E::Regular, 100_000, Some(70_000), vec![]),
        ("d/.wh.gone", E::Regular, 0, None, vec![]),
        ("link", E::Symlink, 0, None, vec![]),
        ("pipe", E::Fifo, 0, None, vec![]),
        ("null", E::Char, 0, None, vec![]),
        ("etc/", E::Directory, 0, None, vec![]),
    ];
    let expected =
        expected.map(|(path, kind, length, at, names)| (path.to_owned(), kind, length, at, names));
    assert_eq!(told, expected);
}

/// Reads all of it.
fn read(bytes: &[u8]) -> Result<usize, Error> {
    let mut changes = Changes::new(bytes);
    let mut count = 0;
    while let Some(item) = changes.item().map_err(Error::Read)? {
        if let Kind::File(_) = item.kind {
            while changes.content().map_err(Error::Read)?.is_some() {}
        }
        count += 1;
    }
    Ok(count)
}

#[test]
fn what_is_in_no_order_is_refused() {
    assert_eq!(read(&stream(&some())).unwrap(), 11);
    let file = Record::File {
        name: b"f",
        size: 4,
    };
    let root = directory(b"r");
    for wrong in [
        vec![],
        vec![Record::End],
        vec![file, AHEAD],
        vec![node(b"x", 0o010_644, 0), Record::End],
        vec![root[0], Record::End],
        vec![root[0], root[1], Record::End],
        [&root[..], &END, &root, &END, &[Record::End]].concat(),
        [
            &root[..],
            &[
                file,
                AHEAD,
                Record::Data {
                    offset: 3,
                    bytes: b"xy",
                },
            ],
        ]
        .concat(),
        [&root[..], &[file, AHEAD, Record::End]].concat(),
        [&root[..], &[file, AHEAD, file]].concat(),
        [&root[..], &[node(b"x", 0o140_644, 0)]].concat(),
        [&root[..], &END, &END, &[Record::End]].concat(),
        [&root[..], &[Record::Enter { name: b"x" }]].concat(),
    ] {
        assert!(read(&stream(&wrong)).is_err(), "{wrong:?}");
    }
    // Deeper than any file system that the other side walks.
    let deep: Vec<_> = (0..400).flat_map(|_| directory(b"d")).collect();
    assert!(read(&stream(&deep)).is_err());
    // A file whose content goes backwards.
    let two = [4, 0].map(|offset| Record::Data {
        offset,
        bytes: b"ab",
    });
    let file = Record::File {
        name: b"f",
        size: 9,
    };
    let back = [&root[..], &[file, AHEAD], &two, &END, &END, &[Record::End]].concat();
    let bytes = stream(&back);
    let written = write(&mut Changes::new(&bytes[..]), tempfile::tempfile().unwrap());
    assert!(matches!(written, Err(Error::Read(_))), "{written:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn anything_may_come(mut cut in 0_usize..2000, flips in prop::collection::vec((0_usize..2000, any::<u8>()), 0..6), tail: Vec<u8>) {
        let mut bytes = stream(&some());
        cut = cut.min(bytes.len());
        bytes.truncate(cut);
        bytes.extend(tail);
        for (at, byte) in flips {
            if let Some(it) = bytes.get_mut(at) {
                *it = byte;
            }
        }
        let _ = read(&bytes);
    }
}
