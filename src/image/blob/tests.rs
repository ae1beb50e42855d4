//! What is written, and where.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_reserved_is_where_it_would_be_added(
        parts in prop::collection::vec((0..40_000_u64, 1..20_000_u64), 0..6),
        rest in 0..10_000_u64,
        pieces in 0..3_u32,
    ) {
        let mut at = 0;
        let stretches: Vec<_> = parts.iter().map(|(gap, length)| {
            // So far apart that a map of single blocks would be too long.
            let gap = if pieces == 0 { *gap } else { gap << (14 + pieces) };
            let stretch = Stretch { offset: at + gap, length: *length };
            at = stretch.offset + length;
            stretch
        }).collect();
        let (mut added, mut reserved) = (Blob::new(io::sink(), 3, u32::MAX), Blob::new(io::sink(), 3, u32::MAX));
        let content = added.add(at + rest, &stretches, &mut io::repeat(1)).unwrap();
        prop_assert_eq!(reserved.reserve(at + rest, &stretches).unwrap(), content);
        prop_assert_eq!(reserved.blocks(), added.blocks());
    }
}

fn add(size: u64, stretches: &[(u64, &[u8])]) -> (Content, Vec<u8>) {
    let mut blob = Blob::new(Vec::new(), 3, u32::MAX);
    let data: Vec<u8> = stretches
        .iter()
        .flat_map(|(_, data)| data.to_vec())
        .collect();
    let stretches: Vec<_> = stretches
        .iter()
        .map(|(offset, data)| Stretch {
            offset: *offset,
            length: data.len() as u64,
        })
        .collect();
    assert!(stretches_fit(&stretches, size));
    let content = blob.add(size, &stretches, &mut &data[..]).unwrap();
    (content, blob.into_inner())
}

/// The content as whoever mounts it reads it.
fn read(content: &Content, blob: &[u8], range: std::ops::Range<u64>) -> Vec<u8> {
    range
        .map(|at| {
            let block = (at / BLOCK) as u32;
            let run = content
                .runs()
                .iter()
                .find(|run| run.at <= block && u64::from(block) < run.end());
            run.map_or(0, |run| {
                blob[(u64::from(run.block + block - run.at) * BLOCK + at % BLOCK) as usize]
            })
        })
        .collect()
}

#[test]
fn files_begin_at_blocks_and_zeros_cost_nothing() {
    assert_eq!(add(0, &[(0, b"")]), (Content::default(), Vec::new()));
    let (content, blob) = add(5000, &[(0, &[7; 5000])]);
    assert!(content.whole().is_some());
    assert_eq!(
        (blob.len(), read(&content, &blob, 0..5000)),
        (8192, vec![7; 5000])
    );
    let (content, blob) = add(1 << 20, &[(0, &[0; 1 << 20])]);
    assert!(content.runs().is_empty() && blob.is_empty());
    let (content, blob) = add(3 * BLOCK + 1, &[(BLOCK, b"one"), (3 * BLOCK, b"x")]);
    assert_eq!(blob.len(), 8192);
    assert_eq!(read(&content, &blob, BLOCK..BLOCK + 4), b"one\0");
    assert_eq!(read(&content, &blob, 3 * BLOCK..3 * BLOCK + 1), b"x");
    let runs: Vec<_> = content
        .runs()
        .iter()
        .map(|run| (run.at, run.blob, run.block))
        .collect();
    assert_eq!(runs, [(1, 3, 0), (3, 3, 1)]);
}

#[test]
fn a_long_sparse_file_has_a_short_map() {
    let size = (1 << 40) + 5;
    let (content, blob) = add(
        size,
        &[
            (1 << 33, b"abc"),
            ((1 << 33) + 9000, b"d"),
            (size - 1, b"e"),
        ],
    );
    // 2^40 bytes in 2^18 pieces, and a little more: 8 MiB each, the last one as long as the file.
    let piece = 8 << 20;
    let (first, second) = (content.runs()[0], content.runs()[1]);
    assert_eq!(
        (u64::from(first.at) * BLOCK, u64::from(first.blocks) * BLOCK),
        (1 << 33, piece)
    );
    assert_eq!((u64::from(second.at) * BLOCK, second.blocks), (1 << 40, 1));
    assert_eq!(blob.len() as u64, piece + BLOCK);
    assert_eq!(read(&content, &blob, (1 << 33)..(1 << 33) + 4), b"abc\0");
    assert_eq!(
        read(&content, &blob, (1 << 33) + 9000..(1 << 33) + 9001),
        b"d"
    );
    assert_eq!(read(&content, &blob, size - 1..size), b"e");
}

#[test]
fn bounds_are_kept() {
    let mut blob = Blob::new(Vec::new(), 0, 2);
    let all = |length| [Stretch { offset: 0, length }];
    let add = |blob: &mut Blob<_>, size| blob.add(size, &all(size), &mut io::repeat(1));
    assert!(matches!(
        add(&mut blob, 2 * BLOCK + 1),
        Err(Error::Full { limit: 2 })
    ));
    assert_eq!(blob.blocks(), 2);
    let long = Content::MAX_SIZE + 1;
    assert!(matches!(add(&mut blob, long), Err(Error::LongFile(size)) if size == long));
    let mut blob = Blob::new(Vec::new(), 0, 2);
    let error = blob.add(10, &all(10), &mut &b"short"[..]).unwrap_err();
    assert!(matches!(error, Error::Read(_)), "{error}");
    assert!(!stretches_fit(&all(11), 10) && !stretches_fit(&[all(5)[0], all(5)[0]], 10));
    let wraps = Stretch {
        offset: 2,
        length: u64::MAX,
    };
    assert!(!stretches_fit(&[wraps], u64::MAX));
}
