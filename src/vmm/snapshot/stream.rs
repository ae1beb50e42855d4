//! A VM on its way to a file: pieces, each with its place there. Whoever writes the file knows nothing of VMs,
//! and what it gets need not be believed.
//!
//! A piece is its place (8 bytes), its length (4 bytes) and as many bytes. Parts that are zero are left out: a file has
//! holes there. What is told again takes the place of what was told before. The last piece has no bytes, and its place is the
//! length of the file, of which checksums and the mark at its end are for whoever writes it: they are known when all is told.

use super::layout::{MEMORY_START, file_bytes};
use crate::memory::{GuestRam, Part};
use std::io;

/// No piece is longer.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Place and length.
pub(super) const PIECE_HEAD: usize = 12;

/// Adds the first piece of a part of memory that is not empty, which begins behind that from then on; nothing of one that is zero.
///
/// # Errors
/// When guest memory cannot be read, which is a bug.
pub fn put_unless_zero(ram: &GuestRam, part: &mut Part, pieces: &mut Vec<u8>) -> io::Result<()> {
    let start = pieces.len();
    put(ram, part, pieces)?;
    if is_zero(&pieces[start + PIECE_HEAD..]) {
        pieces.truncate(start);
    }
    Ok(())
}

/// The same of one that was told before: zeros take the place of what was there.
///
/// # Errors
/// As above.
pub fn put(ram: &GuestRam, part: &mut Part, pieces: &mut Vec<u8>) -> io::Result<()> {
    let rest = ram.rest_of_region(part.start).min(part.end - part.start);
    let count = PIECE_BYTES.min(rest as usize);
    put_head(MEMORY_START + part.start, count, pieces);
    let start = pieces.len();
    pieces.resize(start + count, 0);
    ram.read_part(part.start, &mut pieces[start..])?;
    part.start += count as u64;
    Ok(())
}

/// Adds the last pieces: all of a VM but its memory, of which it has this many bytes.
pub fn put_rest(state: &[u8], memory: u64, pieces: &mut Vec<u8>) {
    let mut place = 0;
    for bytes in state.chunks(PIECE_BYTES) {
        put_head(place, bytes.len(), pieces);
        pieces.extend_from_slice(bytes);
        place += bytes.len() as u64;
    }
    put_head(file_bytes(memory), 0, pieces);
}

fn put_head(place: u64, count: usize, pieces: &mut Vec<u8>) {
    pieces.extend(place.to_le_bytes());
    pieces.extend((count as u32).to_le_bytes());
}

/// Compared with itself, one byte on: as fast as memory is.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1]
}
