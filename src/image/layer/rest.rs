//! What an archive is beside the content of its files, kept so that the very same archive can be made again: headers,
//! padding, what stands behind the end, each in its place between the contents, which are in the blob.
//!
//! A registry knows a layer by the digest of its compressed archive, an image by that of the archive itself. So `save` and
//! `push` need every byte of it, and an archive that is written anew from the files would be another layer.

use crate::blob::Stretch;
use crate::packed::Packed;
use crate::tree::{BLOCK, Content};
use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;

/// What follows: bytes, bytes of the blob, or zeros.
const BYTES: u64 = 0;
const BLOB: u64 = 1;
const ZEROS: u64 = 2;

/// Zeros in a row that are worth a note of their own.
const MANY: usize = 64;

/// Takes notes of an archive while it is read.
#[derive(Debug)]
pub struct Rest<W: Write> {
    out: DeflateEncoder<Bounded<W>>,
    /// Not written yet, as more of the same may come.
    bytes: Vec<u8>,
    zeros: u64,
}

/// What bytes wait for others.
const PIECE: usize = 64 << 10;

impl<W: Write> Rest<W> {
    /// Takes at most `limit` bytes to keep, compressed.
    pub fn new(out: W, limit: u64) -> Self {
        let left = limit;
        Self {
            out: DeflateEncoder::new(Bounded { out, left }, Compression::fast()),
            bytes: Vec::new(),
            zeros: 0,
        }
    }

    /// Bytes that are no content.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        if is_zero && (bytes.len() >= MANY || self.zeros > 0) {
            self.flush_bytes()?;
            self.zeros += bytes.len() as u64;
            return Ok(());
        }
        self.flush_zeros()?;
        self.bytes.extend_from_slice(bytes);
        match self.bytes.len() >= PIECE {
            true => self.flush_bytes(),
            false => Ok(()),
        }
    }

    /// The data of a file, all stretches behind each other, which is in the blob by now.
    pub(super) fn content(&mut self, content: &Content, stretches: &[Stretch]) -> io::Result<()> {
        let mut runs = content.runs().iter().copied().peekable();
        for stretch in stretches {
            let mut at = stretch.offset;
            let end = at + stretch.length;
            while at < end {
                while runs.next_if(|run| run.end() * BLOCK <= at).is_some() {}
                let (begin, run_end) = match runs.peek() {
                    Some(run) => (u64::from(run.at) * BLOCK, run.end() * BLOCK),
                    None => (end, end),
                };
                let piece = match (at < begin, runs.peek()) {
                    (false, Some(run)) => {
                        let length = run_end.min(end) - at;
                        let from = u64::from(run.block) * BLOCK + (at - begin);
                        self.blob(from, length)?;
                        length
                    }
                    _ => {
                        let length = begin.min(end) - at;
                        self.flush_bytes()?;
                        self.zeros += length;
                        length
                    }
                };
                at += piece;
            }
        }
        Ok(())
    }

    fn blob(&mut self, from: u64, length: u64) -> io::Result<()> {
        self.flush_bytes()?;
        self.flush_zeros()?;
        self.note(&[BLOB, from, length], b"")
    }

    fn note(&mut self, numbers: &[u64], bytes: &[u8]) -> io::Result<()> {
        let mut packed = Packed::default();
        numbers.iter().for_each(|number| packed.number(*number));
        self.out.write_all(&packed.0)?;
        self.out.write_all(bytes)
    }

    fn flush_bytes(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.note(&[BYTES, bytes.len() as u64], &bytes)?;
        }
        // It keeps what it has for the next ones.
        self.bytes = bytes;
        self.bytes.clear();
        Ok(())
    }

    fn flush_zeros(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.zeros) {
            0 => Ok(()),
            zeros => self.note(&[ZEROS, zeros], b""),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be written, or is longer than it may be.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush_bytes()?;
        self.flush_zeros()?;
        Ok(self.out.finish()?.out)
    }
}

/// Writes no more than is left.
#[derive(Debug)]
struct Bounded<W> {
    out: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.out.write(bytes)?;
        self.left -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// An archive, made again from its blob and its rest. Its end is where the rest's is.
#[derive(Debug)]
pub struct Rebuilt<R: Read> {
    rest: BufReader<DeflateDecoder<BufReader<R>>>,
    blob: File,
    /// Of the blob, in bytes.
    length: u64,
    piece: Piece,
}

/// What of the archive comes next.
#[derive(Clone, Copy, Debug)]
enum Piece {
    Bytes(u64),
    Blob { at: u64, left: u64 },
    Zeros(u64),
}

impl<R: Read> Rebuilt<R> {
    /// From a rest, and a file that begins with the blob.
    pub fn new(rest: R, blob: File, length: u64) -> Self {
        Self {
            rest: BufReader::new(DeflateDecoder::new(BufReader::new(rest))),
            blob,
            length,
            piece: Piece::Zeros(0),
        }
    }

    /// What comes next; nothing at the end.
    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        if self.rest.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let piece = match self.number()? {
            BYTES => Piece::Bytes(self.number()?),
            BLOB => {
                let (at, left) = (self.number()?, self.number()?);
                let is_there = at.checked_add(left).is_some_and(|end| end <= self.length);
                is_there
                    .then_some(Piece::Blob { at, left })
                    .ok_or_else(broken)?
            }
            ZEROS => Piece::Zeros(self.number()?),
            _ => return Err(broken()),
        };
        Ok(Some(piece))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(10);
        loop {
            let mut byte = [0];
            self.rest.read_exact(&mut byte)?;
            bytes.extend(byte);
            if byte[0] & 0x80 == 0 || bytes.len() == 10 {
                return crate::packed::Unpacked(&bytes).number().ok_or_else(broken);
            }
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl<R: Read> Read for Rebuilt<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while let Piece::Bytes(0) | Piece::Blob { left: 0, .. } | Piece::Zeros(0) = self.piece {
            match self.next_piece()? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let (Piece::Bytes(left) | Piece::Blob { left, .. } | Piece::Zeros(left)) = &mut self.piece;
        let length = (*left).min(bytes.len() as u64);
        let part = &mut bytes[..length as usize];
        *left -= length;
        match &mut self.piece {
            Piece::Bytes(_) => self.rest.read_exact(part)?,
            Piece::Zeros(_) => part.fill(0),
            Piece::Blob { at, .. } => {
                self.blob.read_exact_at(part, *at)?;
                *at += length;
            }
        }
        Ok(part.len())
    }
}
