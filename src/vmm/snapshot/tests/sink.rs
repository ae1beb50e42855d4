//! Who tells need not be believed.

use super::*;
use std::io::{self, Write};

/// Whoever tells may have been taken over by its guest.
#[test]
fn a_teller_writes_no_more_than_it_may() {
    const MOST: u64 = MEMORY_START + MIB as u64 + 4 + 24;
    let piece = |place: u64, count: u32, bytes: usize| {
        let mut piece = place.to_le_bytes().to_vec();
        piece.extend(count.to_le_bytes());
        piece.resize(12 + bytes, 7);
        piece
    };
    let fill = |told: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        let filled = Sink::new(&file, MOST).fill(told);
        let length = file.metadata().unwrap().len();
        assert!(length <= MOST);
        filled.map_err(|error| error.kind())
    };
    let invalid = Err(io::ErrorKind::InvalidData);
    let whole = [piece(0, 10, 10), piece(MOST, 0, 0)].concat();
    assert_eq!(fill(&whole), Ok(MOST));
    // No memory makes a file of that length.
    for length in [10, MEMORY_START, MOST - 1] {
        assert_eq!(fill(&piece(length, 0, 0)), invalid, "{length}");
    }
    assert_eq!(fill(&piece(MOST - 9, 10, 10)), invalid);
    assert_eq!(fill(&piece(u64::MAX, 10, 10)), invalid);
    assert_eq!(fill(&piece(0, u32::MAX, 10)), invalid);
    assert_eq!(fill(&piece(MOST + 1, 0, 0)), invalid);
    let short = Err(io::ErrorKind::UnexpectedEof);
    assert_eq!(fill(&piece(0, 10, 9)), short);
    assert_eq!(fill(&piece(0, 10, 10)), short);
    // Again and again in the same place.
    let mut again = Vec::new();
    let many = MOST * 16 / 65536 + 1;
    (0..many).for_each(|_| again.write_all(&piece(0, 65536, 65536)).unwrap());
    assert_eq!(fill(&again), invalid);
}
