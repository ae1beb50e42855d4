//! An archive on its way: counted, with its digest, and with notes of what is no content.

use super::{Error, Rest};
use crate::blob::Stretch;
use crate::tree::Content;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// What is read, with its digest, up to a bound. All that is no content goes to the rest.
pub struct Digested<'a, R, W: Write> {
    source: R,
    rest: &'a mut Rest<W>,
    is_content: bool,
    digest: Sha256,
    length: u64,
    limit: u64,
    is_long: bool,
    /// Why the rest could not be written.
    unwritten: Option<io::Error>,
}

impl<'a, R, W: Write> Digested<'a, R, W> {
    pub fn new(source: R, rest: &'a mut Rest<W>, limit: u64) -> Self {
        Self {
            source,
            rest,
            is_content: false,
            digest: Sha256::new(),
            length: 0,
            limit,
            is_long: false,
            unwritten: None,
        }
    }

    /// From here on it is a file's data.
    pub fn begin_content(&mut self) {
        self.is_content = true;
    }

    /// Here the data has ended, which is in the blob.
    pub fn end_content(&mut self, content: &Content, stretches: &[Stretch]) -> io::Result<()> {
        self.is_content = false;
        self.rest.content(content, stretches)
    }

    /// What has ended it, if it is not what it is read from.
    pub fn check(&mut self) -> Result<(), Error> {
        if self.is_long {
            return Err(Error::Long(self.limit));
        }
        self.unwritten
            .take()
            .map_or(Ok(()), |error| Err(Error::Rest(error)))
    }

    /// The digest and the length of all that was read.
    pub fn finish(self) -> ([u8; 32], u64) {
        (self.digest.finalize().into(), self.length)
    }
}

impl<R: Read, W: Write> Read for Digested<'_, R, W> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(bytes)?;
        self.digest.update(&bytes[..count]);
        self.length += count as u64;
        if self.length > self.limit {
            self.is_long = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if !self.is_content
            && let Err(error) = self.rest.bytes(&bytes[..count])
        {
            let kind = error.kind();
            self.unwritten = Some(error);
            return Err(kind.into());
        }
        Ok(count)
    }
}
