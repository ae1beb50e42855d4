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

impl<W: Write> Blob<W> {
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
        if size > Content::MAX_SIZE {
            return Err(Error::LongFile(size));
        }
        let pieces = size.div_ceil(MAX_PIECES * BLOCK).next_power_of_two();
        let mut file = Addition {
            blob: self,
            piece: u32::try_from(pieces).unwrap_or(u32::MAX),
            runs: Vec::new(),
        };
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

    fn write(&mut self, block: &[u8; BYTES]) -> Result<u32, Error> {
        let at = self.blocks;
        if at >= self.limit {
            return Err(Error::Full { limit: self.limit });
        }
        self.out.write_all(block).map_err(Error::Write)?;
        self.blocks = at + 1;
        Ok(at)
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

/// A file that is being added.
struct Addition<'a, W> {
    blob: &'a mut Blob<W>,
    /// Holes and data begin at multiples of this many blocks.
    piece: u32,
    runs: Vec<Run>,
}

impl<W: Write> Addition<'_, W> {
    /// The next block with something in it.
    fn block(&mut self, number: Option<u64>, block: &[u8; BYTES]) -> Result<(), Error> {
        let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
            return Ok(());
        };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        // Within a piece there are no holes.
        let piece = number - number % self.piece;
        self.fill_to(number, piece)?;
        self.push(number, block)
    }

    /// Ends the piece that was begun, if it is another one than that which begins at `piece`; and begins this one.
    fn fill_to(&mut self, number: u32, piece: u32) -> Result<(), Error> {
        const ZEROS: &[u8; BYTES] = &[0; BYTES];
        let mut next = piece;
        if let Some(last) = self.runs.last() {
            let end = last.end() as u32;
            let whole = end.next_multiple_of(self.piece);
            if whole > piece {
                next = end;
            } else {
                for at in end..whole {
                    self.push(at, ZEROS)?;
                }
            }
        }
        for at in next..number {
            self.push(at, ZEROS)?;
        }
        Ok(())
    }

    fn push(&mut self, at: u32, block: &[u8; BYTES]) -> Result<(), Error> {
        let written = self.blob.write(block)?;
        match self.runs.last_mut() {
            // A file's blocks follow each other in the blob, so only a hole ends a run.
            Some(last) if last.end() == u64::from(at) => last.blocks += 1,
            _ => self.runs.push(Run {
                at,
                blob: self.blob.number,
                block: written,
                blocks: 1,
            }),
        }
        Ok(())
    }

    /// Ends the last piece, at the latest where the file does.
    fn finish(mut self, size: u64) -> Result<Vec<Run>, Error> {
        let blocks = size.div_ceil(BLOCK);
        if let Some(last) = self.runs.last() {
            let end = last.end();
            let whole = end.next_multiple_of(self.piece.into()).min(blocks);
            for at in end..whole {
                self.push(at as u32, &[0; BYTES])?;
            }
        }
        Ok(self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
