//! Whoever writes a file from what is told.

use super::fault::Fault;
use super::file::Saved;
use super::layout::{BLOCK, MEMORY_START, difference_bytes, end_mark, memory_of};
use super::parts::{Holes, Tail, exactly, lay_over};
use super::stream::{PIECE_BYTES, PIECE_HEAD};
use crate::memory::{PAGE_BYTES, Pages};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Writes a file from [pieces](super::put) that somebody tells, who need not be believed: no more than a file of that
/// length.
pub struct Sink<'a> {
    file: &'a File,
    most: u64,
    written: u64,
    /// What is written at once, and where.
    pending: (u64, Vec<u8>),
    /// What it is the difference to, and which pages were told.
    over: Option<(&'a Saved, Pages)>,
}

/// Written at once: pieces that follow each other.
const WRITE_BYTES: usize = 1 << 20;
/// What was told may be told again, as often on the average.
const MOST_TIMES: u64 = 16;

impl<'a> Sink<'a> {
    /// To an empty file that becomes no longer than `most`.
    pub fn new(file: &'a File, most: u64) -> Self {
        Self {
            file,
            most,
            written: 0,
            pending: (0, Vec::with_capacity(WRITE_BYTES)),
            over: None,
        }
    }

    /// The same of what has changed since a base, which is whole.
    pub fn over(file: &'a File, most: u64, base: &'a Saved) -> Self {
        let pages = Pages::none_of(base.state.machine.memory_bytes);
        Self {
            over: Some((base, pages)),
            ..Self::new(file, most)
        }
    }

    /// Writes all that is told until the last piece, and checksums of memory; returns the length of the file, which can be
    /// read as well.
    ///
    /// # Errors
    /// When it ends before that ([`UnexpectedEof`](io::ErrorKind::UnexpectedEof)), tells of more than there can be, or the
    /// file cannot be written.
    pub fn fill(mut self, mut from: impl Read) -> io::Result<u64> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let mut head = [0; PIECE_HEAD];
            from.read_exact(&mut head)?;
            let (place, count) = parse(head);
            let end = place.checked_add(count.into());
            let (count, fits) = (count as usize, end.is_some_and(|end| end <= self.most));
            let most = self.most.saturating_mul(MOST_TIMES);
            if count > PIECE_BYTES || !fits || self.written + count as u64 > most {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if count == 0 {
                self.flush()?;
                return self.finish(place);
            }
            self.note(place, count as u64)?;
            from.read_exact(&mut piece[..count])?;
            self.written += count as u64;
            self.put(place, &piece[..count])?;
        }
    }

    /// Of a difference, what of memory is told.
    fn note(&mut self, place: u64, count: u64) -> io::Result<()> {
        let Some((base, pages)) = &mut self.over else {
            return Ok(());
        };
        let Some(start) = place.checked_sub(MEMORY_START) else {
            let is_before = place + count <= MEMORY_START;
            return is_before
                .then_some(())
                .ok_or(io::ErrorKind::InvalidData.into());
        };
        let is_whole = start.is_multiple_of(PAGE_BYTES) && count.is_multiple_of(PAGE_BYTES);
        if !is_whole || start + count > base.state.machine.memory_bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        pages.add(&(start..start + count));
        Ok(())
    }

    /// Writes what is behind memory, of which all is told; a whole file would be that long.
    fn finish(self, length: u64) -> io::Result<u64> {
        let Some((base, pages)) = &self.over else {
            self.file.set_len(length)?;
            finish(self.file, length)?;
            return Ok(length);
        };
        let memory = base.state.machine.memory_bytes;
        if memory_of(length) != Some(memory) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(finish_over(self.file, base, pages, memory)?)
    }

    fn put(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let (start, pending) = &self.pending;
        let follows = start + pending.len() as u64 == place;
        if !follows || pending.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
            self.pending.0 = place;
        }
        self.pending.1.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (start, pending) = &mut self.pending;
        self.file.write_all_at(pending, *start)?;
        pending.clear();
        Ok(())
    }
}

/// Writes what is behind the memory of a file of that length.
pub(super) fn finish(file: &File, length: u64) -> io::Result<()> {
    let memory = memory_of(length).ok_or(io::ErrorKind::InvalidData)?;
    let mut table = Vec::new();
    let mut block = vec![0; BLOCK];
    let zeros = crc32fast::hash(&block);
    // What is a hole is not read.
    let mut holes = Holes::of(file, length);
    for start in (0..memory).step_by(BLOCK) {
        let (place, count) = (MEMORY_START + start, (memory - start).min(BLOCK as u64));
        let is_whole = count == BLOCK as u64;
        let checksum = match is_whole && holes.has(place, count) {
            true => zeros,
            false => {
                let block = &mut block[..count as usize];
                file.read_exact_at(block, place)?;
                crc32fast::hash(block)
            }
        };
        table.extend(checksum.to_le_bytes());
    }
    let checksum = crc32fast::hash(&table);
    table.extend(end_mark(length, checksum));
    file.write_all_at(&table, MEMORY_START + memory)
}

/// Place and length.
fn parse(head: [u8; PIECE_HEAD]) -> (u64, u32) {
    let (mut place, mut count) = ([0; 8], [0; 4]);
    place.copy_from_slice(&head[..8]);
    count.copy_from_slice(&head[8..]);
    (u64::from_le_bytes(place), u32::from_le_bytes(count))
}

/// The same of a difference: checksums of memory as it is with its base, which pages it has, and the mark of that.
fn finish_over(file: &File, base: &Saved, pages: &Pages, memory: u64) -> Result<u64, Fault> {
    // Somebody may have put another difference into it.
    let below = Tail::of(&base.memory, memory, base.state.base.is_some())?;
    let length = difference_bytes(memory);
    file.set_len(length)?;
    let mut tail = Vec::new();
    let mut block = vec![0; BLOCK];
    for (number, checksum) in (0u64..).zip(below.checksums()) {
        let start = number * BLOCK as u64;
        let count = (memory - start).min(BLOCK as u64);
        if pages.parts_in(start..start + count).next().is_none() {
            tail.extend(checksum);
            continue;
        }
        let block = &mut block[..count as usize];
        exactly(&base.memory, block, MEMORY_START + start)?;
        lay_over(block, start, pages, file)?;
        tail.extend(crc32fast::hash(block).to_le_bytes());
    }
    tail.extend(pages.to_bytes());
    tail.extend(below.mark);
    let checksum = crc32fast::hash(&tail);
    tail.extend(end_mark(length, checksum));
    file.write_all_at(&tail, MEMORY_START + memory)?;
    Ok(length)
}
