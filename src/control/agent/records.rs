//! Records of files as a guest's agent [sends them](super::Agent::pack), read one after another.

use kvmlet_contract::archive::Record;
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD};
use std::io::{self, Read};

/// Records as they come, of which one at a time is in memory.
#[derive(Debug)]
pub struct Records<R> {
    stream: R,
    bytes: Vec<u8>,
}

/// A record whose bytes are its own.
#[derive(Clone, Debug)]
pub struct OwnRecord(Vec<u8>);

impl OwnRecord {
    /// What it says.
    pub fn get(&self) -> Record<'_> {
        // It was decoded before.
        let decoded = Record::decode(&self.0).ok().flatten();
        decoded.map_or(Record::End, |(record, _)| record)
    }
}

impl<R: Read> Records<R> {
    /// Those that a stream has.
    pub fn new(stream: R) -> Self {
        let bytes = Vec::new();
        Self { stream, bytes }
    }

    /// The next record, which is passed over.
    ///
    /// # Errors
    /// When the stream fails, ends, or has no record there.
    pub fn take(&mut self) -> io::Result<OwnRecord> {
        let length = self.fill()?;
        let record = self.bytes[..length].to_vec();
        self.bytes.drain(..length);
        Ok(OwnRecord(record))
    }

    /// Hands over the next record, and passes over it unless nothing comes of it: then it is still the next.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_if<T>(
        &mut self,
        take: impl FnOnce(&Record<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let length = self.fill()?;
        let next = Record::decode(&self.bytes[..length]).map_err(io::Error::other)?;
        let taken = next.and_then(|(record, _)| take(&record));
        if taken.is_some() {
            self.bytes.drain(..length);
        }
        Ok(taken)
    }

    /// Reads until a record is there as a whole; how long it is.
    fn fill(&mut self) -> io::Result<usize> {
        loop {
            if let Some((_, length)) = Record::decode(&self.bytes).map_err(io::Error::other)? {
                return Ok(length);
            }
            let mut piece = [0; HEADER + MAX_PAYLOAD];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next piece of a file's content, and where in it that is; nothing if the next record is none.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn piece(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        self.take_if(|record| match record {
            Record::Data { offset, bytes } => Some((*offset, bytes.to_vec())),
            _ => None,
        })
    }
}

/// The content of a file as it is read: pieces that come in order, and zeros for what is between them.
#[derive(Debug)]
pub struct Content {
    size: u64,
    at: u64,
    /// Data that is not read yet, and where it belongs.
    piece: Option<(u64, Vec<u8>)>,
    /// All data has come: what follows is a hole.
    is_over: bool,
}

impl Content {
    /// That of a file of this many bytes.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            at: 0,
            piece: None,
            is_over: false,
        }
    }

    /// Fills a buffer, at least in part, with what comes next, for which it asks for a further piece where it needs one; 0 at
    /// the end.
    ///
    /// # Errors
    /// When there is no piece, or one that does not belong there.
    pub fn fill(
        &mut self,
        buffer: &mut [u8],
        next: impl FnOnce() -> io::Result<Option<(u64, Vec<u8>)>>,
    ) -> io::Result<usize> {
        if self.piece.is_none() && !self.is_over && !buffer.is_empty() {
            self.piece = next()?;
            self.is_over = self.piece.is_none();
            self.check()?;
        }
        let count = match &mut self.piece {
            Some((offset, bytes)) if *offset == self.at => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                bytes.drain(..count);
                *offset += count as u64;
                self.piece = self.piece.take().filter(|(_, bytes)| !bytes.is_empty());
                count
            }
            hole => {
                let until = hole.as_ref().map_or(self.size, |(offset, _)| *offset);
                let hole = usize::try_from(until - self.at).unwrap_or(usize::MAX);
                let count = hole.min(buffer.len());
                buffer[..count].fill(0);
                count
            }
        };
        self.at += count as u64;
        Ok(count)
    }

    /// A guest may send pieces as it likes.
    fn check(&self) -> io::Result<()> {
        let Some((offset, bytes)) = &self.piece else {
            return Ok(());
        };
        let end = offset.checked_add(bytes.len() as u64);
        match *offset >= self.at && end.is_some_and(|end| end <= self.size) {
            true => Ok(()),
            false => Err(io::Error::other(
                "a file's content does not come in order, or is longer than the file",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a file with these pieces.
    fn read(size: u64, pieces: &[(u64, &[u8])], at_once: usize) -> io::Result<Vec<u8>> {
        let mut pieces = pieces.iter();
        let mut content = Content::new(size);
        let (mut all, mut buffer) = (Vec::new(), vec![0xee; at_once]);
        loop {
            let next = || Ok(pieces.next().map(|(at, bytes)| (*at, bytes.to_vec())));
            match content.fill(&mut buffer, next)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    #[test]
    fn holes_are_zeros() {
        for at_once in [1, 2, 3, 100] {
            let pieces: [(u64, &[u8]); 2] = [(2, b"ab"), (5, b"c")];
            assert_eq!(read(8, &pieces, at_once).unwrap(), b"\0\0ab\0c\0\0");
            assert_eq!(read(3, &[], at_once).unwrap(), [0; 3]);
            assert!(read(0, &[], at_once).unwrap().is_empty());
        }
    }

    #[test]
    fn pieces_that_do_not_belong_there_are_refused() {
        let wrong: [&[(u64, &[u8])]; 4] = [
            &[(2, b"ab"), (3, b"c")],
            &[(7, b"ab")],
            &[(9, b"")],
            &[(u64::MAX, b"ab")],
        ];
        for pieces in wrong {
            assert!(read(8, pieces, 100).is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn what_nothing_comes_of_stays_the_next() {
        let mut wire = [0; HEADER + MAX_PAYLOAD];
        let length = Record::End.encode(&mut wire).unwrap();
        let mut records = Records::new(&wire[..length]);
        assert!(records.piece().unwrap().is_none());
        assert!(matches!(records.take().unwrap().get(), Record::End));
        let error = records.take().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
