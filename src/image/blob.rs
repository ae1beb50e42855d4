//! Content, written one file after the other into a blob of whole blocks. Blocks of zeros are holes, wherever that
//! costs no more than it saves.

use crate::tree::{BLOCK, Content, Run};
use std::io::{self, Read, Write};

/// A file with holes has a map of as many pieces as this at most, a megabyte of metadata; so a long file's holes are
/// told from its data in pieces of more than one block.
const MAX_PIECES: u64 = 1 << 18;
/// One block, for arrays.
const BYTES: usize = BLOCK as usize;

/// Why content is not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read to its end.
    #[error("the content of a file cannot be read")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("content cannot be written")]
    Write(#[source] io::Error),
    /// It is longer than a file may be.
    #[error("a file of {0} bytes, more than {max}", max = Content::MAX_SIZE)]
    LongFile(u64),
    /// The blob would be larger than its bound.
    #[error("content of more than {bytes} bytes", bytes = u64::from(*.limit) * BLOCK)]
    Full {
        /// What the blob may have, in blocks.
        limit: u32,
    },
}

/// Where a blob is written to.
pub trait Sink: Write {
    /// Writes this many zeros, which need not take place: of a few bytes that a stranger has sent, they may be many.
    ///
    /// # Errors
    /// When they cannot be written.
    fn zeros(&mut self, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let count = left.min(BLOCK);
            self.write_all(&[0; BYTES][..count as usize])?;
            left -= count;
        }
        Ok(())
    }
}

impl Sink for Vec<u8> {}

impl<W: Write> Sink for io::BufWriter<W> {}

impl Sink for io::Sink {
    fn zeros(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A blob that is being written.
#[derive(Debug)]
pub struct Blob<W> {
    out: W,
    /// Which one it is, for [`Run`]s.
    number: u16,
    blocks: u32,
    limit: u32,
}

/// A stretch of a sparse file that is not a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl<W: Sink> Blob<W> {
    /// A new one with a number, and a bound in blocks.
    pub fn new(out: W, number: u16, limit: u32) -> Self {
        Self {
            out,
            number,
            blocks: 0,
            limit,
        }
    }

    /// How many blocks there are so far.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// What it was written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Adds a file of this many bytes. Its data comes from `data`, all stretches behind each other; what is between
    /// them is a hole. They must be in order and within the file, as [`stretches_fit`] says; what is not is left out.
    ///
    /// # Errors
    /// When `data` ends too early, among others. The blob has part of the file then, which does no harm.
    pub fn add(
        &mut self,
        size: u64,
        stretches: &[Stretch],
        data: &mut impl Read,
    ) -> Result<Content, Error> {
        let mut file = self.begin(size)?;
        let mut block = Box::new([0; BYTES]);
        // The block that `block` is, and whether anything is in it.
        let mut open = None;
        for stretch in stretches {
            let mut at = stretch.offset;
            let end = at.saturating_add(stretch.length).min(size);
            while at < end {
                let number = at / BLOCK;
                if open.is_some_and(|open| open != number) {
                    file.block(open.take(), &block)?;
                    block.fill(0);
                }
                open = Some(number);
                let from = at % BLOCK;
                let length = (BLOCK - from).min(end - at);
                let part = &mut block[from as usize..(from + length) as usize];
                data.read_exact(part).map_err(Error::Read)?;
                at += length;
            }
        }
        file.block(open, &block)?;
        let runs = file.finish(size)?;
        Content::new(size, runs).ok_or(Error::LongFile(size))
    }

    /// Gives a file of this many bytes its place, with zeros there, for who writes it later: all blocks in which its stretches
    /// have something. They are in order, as for [`add`](Self::add).
    ///
    /// # Errors
    /// When it has no place.
    pub fn reserve(&mut self, size: u64, stretches: &[Stretch]) -> Result<Content, Error> {
        let mut file = self.begin(size)?;
        let mut from = 0;
        for stretch in stretches {
            let end = stretch.offset.saturating_add(stretch.length).min(size);
            let blocks = (stretch.offset / BLOCK).max(from)..end.div_ceil(BLOCK);
            if blocks.is_empty() {
                continue;
            }
            from = blocks.end;
            // What a file may have is fewer than 2³¹.
            let (begin, end) = (blocks.start as u32, blocks.end as u32);
            file.fill_to(begin, begin - begin % file.piece)?;
            file.zeros(begin, end)?;
        }
        let runs = file.finish(size)?;
        Content::new(size, runs).ok_or(Error::LongFile(size))
    }

    fn begin(&mut self, size: u64) -> Result<Addition<'_, W>, Error> {
        if size > Content::MAX_SIZE {
            return Err(Error::LongFile(size));
        }
        let pieces = size.div_ceil(MAX_PIECES * BLOCK).next_power_of_two();
        Ok(Addition {
            blob: self,
            piece: u32::try_from(pieces).unwrap_or(u32::MAX),
            runs: Vec::new(),
        })
    }

    fn write(&mut self, block: &[u8; BYTES]) -> Result<u32, Error> {
        let end = self.room(1)?;
        self.out.write_all(block).map_err(Error::Write)?;
        Ok(std::mem::replace(&mut self.blocks, end))
    }

    fn zeros(&mut self, count: u32) -> Result<u32, Error> {
        let end = self.room(count)?;
        let length = u64::from(count) * BLOCK;
        self.out.zeros(length).map_err(Error::Write)?;
        Ok(std::mem::replace(&mut self.blocks, end))
    }

    /// Where it ends with this many more blocks.
    fn room(&self, count: u32) -> Result<u32, Error> {
        let end = self.blocks.checked_add(count);
        let limit = self.limit;
        end.filter(|end| *end <= limit).ok_or(Error::Full { limit })
    }
}

/// Whether stretches are in order, do not overlap, and end within a file of this size.
pub fn stretches_fit(stretches: &[Stretch], size: u64) -> bool {
    let mut from = 0;
    stretches.iter().all(|stretch| {
        let begins = stretch.offset >= from;
        let Some(end) = stretch.offset.checked_add(stretch.length) else {
            return false;
        };
        from = end;
        begins && end <= size
    })
}

/// Sixty-four bytes at a time, which compilers make a few instructions of: a layer may have gigabytes of zeros.
fn is_zero(block: &[u8; BYTES]) -> bool {
    let mut parts = block.chunks_exact(64);
    parts.all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

/// A file that is being added.
struct Addition<'a, W> {
    blob: &'a mut Blob<W>,
    /// Holes and data begin at multiples of this many blocks.
    piece: u32,
    runs: Vec<Run>,
}

impl<W: Sink> Addition<'_, W> {
    /// The next block with something in it.
    fn block(&mut self, number: Option<u64>, block: &[u8; BYTES]) -> Result<(), Error> {
        let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
            return Ok(());
        };
        if is_zero(block) {
            return Ok(());
        }
        // Within a piece there are no holes.
        let piece = number - number % self.piece;
        self.fill_to(number, piece)?;
        self.push(number, block)
    }

    /// Ends the piece that was begun, if it is another one than that which begins at `piece`; and begins this one.
    fn fill_to(&mut self, number: u32, piece: u32) -> Result<(), Error> {
        let mut next = piece;
        if let Some(last) = self.runs.last() {
            let end = last.end() as u32;
            let whole = end.next_multiple_of(self.piece);
            if whole > piece {
                next = end;
            } else {
                self.zeros(end, whole)?;
            }
        }
        self.zeros(next, number)
    }

    fn push(&mut self, at: u32, block: &[u8; BYTES]) -> Result<(), Error> {
        let written = self.blob.write(block)?;
        self.note(at, written, 1);
        Ok(())
    }

    /// Blocks of zeros from one to before another.
    fn zeros(&mut self, at: u32, end: u32) -> Result<(), Error> {
        if at < end {
            let written = self.blob.zeros(end - at)?;
            self.note(at, written, end - at);
        }
        Ok(())
    }

    fn note(&mut self, at: u32, block: u32, blocks: u32) {
        match self.runs.last_mut() {
            // A file's blocks follow each other in the blob, so only a hole ends a run.
            Some(last) if last.end() == u64::from(at) => last.blocks += blocks,
            _ => self.runs.push(Run {
                at,
                blob: self.blob.number,
                block,
                blocks,
            }),
        }
    }

    /// Ends the last piece, at the latest where the file does.
    fn finish(mut self, size: u64) -> Result<Vec<Run>, Error> {
        let blocks = size.div_ceil(BLOCK);
        if let Some(last) = self.runs.last() {
            let end = last.end();
            let whole = end.next_multiple_of(self.piece.into()).min(blocks);
            self.zeros(end as u32, whole as u32)?;
        }
        Ok(self.runs)
    }
}

#[cfg(test)]
mod tests;
