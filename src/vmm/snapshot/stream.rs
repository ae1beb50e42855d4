//! A VM that sleeps on its way to a file: pieces, each with its place there. Whoever writes the file knows nothing of VMs,
//! and what it gets need not be believed.
//!
//! A piece is its place (8 bytes), its length (4 bytes) and as many bytes. Parts that are zero are left out: a file has
//! holes there. The last piece has no bytes, and its place is the length of the file.

use super::layout::{BLOCK, MEMORY_START, end_mark};
use crate::memory::GuestRam;
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// No piece is longer.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Place and length.
pub(super) const PIECE_HEAD: usize = 12;

/// A snapshot that is being told.
pub struct Stream {
    /// The part that comes next.
    part: Part,
    /// Where that goes.
    place: u64,
    /// The first part of the file; checksums of memory and the mark at the end, once that is told.
    ends: Vec<u8>,
    table: Vec<u8>,
    block: crc32fast::Hasher,
    /// A piece as it is sent.
    piece: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Part {
    /// Of `ends`, from here on; memory is next.
    State(usize),
    /// Of the region of that number, from there on.
    Memory(usize, usize),
    /// Of `ends`, from here on.
    End(usize),
    /// It is told how long the file is.
    Length,
    Over,
}

impl Stream {
    /// Of a VM whose state is that.
    pub fn new(state: Vec<u8>) -> Self {
        Self {
            part: Part::State(0),
            place: 0,
            ends: state,
            table: Vec::new(),
            block: crc32fast::Hasher::new(),
            piece: Vec::new(),
        }
    }

    /// The next piece as it is sent, with its head; nothing of one that is zero, and none when all are told. Nothing changes
    /// guest memory meanwhile.
    ///
    /// # Errors
    /// When guest memory cannot be read, which is a bug.
    pub fn next(&mut self, ram: &GuestRam) -> io::Result<Option<&[u8]>> {
        loop {
            match self.part {
                Part::State(from) if from < self.ends.len() => {
                    let sent = self.send_end(from);
                    self.part = Part::State(sent);
                    return Ok(Some(&self.piece));
                }
                Part::State(_) => {
                    self.part = Part::Memory(0, 0);
                    self.place = MEMORY_START;
                }
                Part::Memory(region, offset) => {
                    return Ok(Some(match self.look_at(ram, region, offset)? {
                        true => &self.piece,
                        false => &[],
                    }));
                }
                Part::End(from) if from < self.ends.len() => {
                    let sent = self.send_end(from);
                    self.part = Part::End(sent);
                    return Ok(Some(&self.piece));
                }
                Part::End(_) => self.part = Part::Length,
                Part::Length => {
                    self.part = Part::Over;
                    self.piece = head(self.place, 0).to_vec();
                    return Ok(Some(&self.piece));
                }
                Part::Over => return Ok(None),
            }
        }
    }

    /// Makes a piece of what is told of the ends of the file; returns how far that is.
    fn send_end(&mut self, from: usize) -> usize {
        let to = self.ends.len().min(from + PIECE_BYTES);
        self.piece.clear();
        self.piece.extend(head(self.place, to - from));
        self.piece.extend_from_slice(&self.ends[from..to]);
        self.place += (to - from) as u64;
        to
    }

    /// Makes a piece of the next part of memory, and goes on behind that; false if it is zero.
    fn look_at(&mut self, ram: &GuestRam, number: usize, offset: usize) -> io::Result<bool> {
        let Some(region) = ram.iter().nth(number) else {
            self.finish_memory();
            return Ok(false);
        };
        let size = region.len() as usize;
        if offset == size {
            self.part = Part::Memory(number + 1, 0);
            return Ok(false);
        }
        // A region is whole blocks of the file, but for the last.
        let in_block = (self.place - MEMORY_START) as usize % BLOCK;
        let count = PIECE_BYTES.min(size - offset).min(BLOCK - in_block);
        self.piece.resize(PIECE_HEAD + count, 0);
        let start = GuestAddress(region.start_addr().0 + offset as u64);
        ram.read_slice(&mut self.piece[PIECE_HEAD..], start)
            .map_err(io::Error::other)?;
        let place = self.place;
        self.piece[..PIECE_HEAD].copy_from_slice(&head(place, count));
        self.block.update(&self.piece[PIECE_HEAD..]);
        self.place += count as u64;
        if in_block + count == BLOCK {
            self.finish_block();
        }
        self.part = Part::Memory(number, offset + count);
        Ok(!is_zero(&self.piece[PIECE_HEAD..]))
    }

    fn finish_block(&mut self) {
        let checksum = std::mem::take(&mut self.block).finalize();
        self.table.extend(checksum.to_le_bytes());
    }

    fn finish_memory(&mut self) {
        if !(self.place - MEMORY_START).is_multiple_of(BLOCK as u64) {
            self.finish_block();
        }
        self.ends = std::mem::take(&mut self.table);
        let table = crc32fast::hash(&self.ends);
        let length = self.place + (self.ends.len() + super::layout::END_BYTES) as u64;
        self.ends.extend(end_mark(length, table));
        self.part = Part::End(0);
    }
}

fn head(place: u64, count: usize) -> [u8; PIECE_HEAD] {
    let mut head = [0; PIECE_HEAD];
    head[..8].copy_from_slice(&place.to_le_bytes());
    head[8..].copy_from_slice(&(count as u32).to_le_bytes());
    head
}

/// Compared with itself, one byte on: as fast as memory is.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes[1..] == bytes[..bytes.len() - 1]
}
