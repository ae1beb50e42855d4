//! Messages on a stream, which keeps no bounds: each has its length before it, in four bytes.

use crate::{LONGEST, Malformed};

/// What the length takes.
const LENGTH: usize = 4;

/// A message with its length before it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    // No message is longer than LONGEST.
    let mut bytes = (message.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

/// A message that comes in pieces. It holds what has come, and no more than one message.
#[derive(Debug)]
pub struct Frame {
    longest: usize,
    bytes: Vec<u8>,
}

impl Frame {
    /// One of which nothing has come yet, with at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self {
            longest: longest.min(LONGEST),
            bytes: Vec::new(),
        }
    }

    /// How many bytes are to be read now: who reads no more leaves the next message where it is.
    pub fn lacks(&self) -> usize {
        let whole = self.length().map_or(LENGTH, |length| LENGTH + length);
        whole.saturating_sub(self.bytes.len())
    }

    /// What has come of it so far.
    pub fn so_far(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds what has come, at most what it lacks, and gives the message when it is whole; then it is the next one's turn.
    ///
    /// # Errors
    /// [`Malformed::Long`] when it is longer than it may be, and [`Malformed::Short`] when it is none. No more can be read
    /// of that stream.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let taken = bytes.len().min(self.lacks());
        self.bytes.extend_from_slice(&bytes[..taken]);
        match self.length() {
            None => Ok(None),
            Some(0) => Err(Malformed::Short),
            Some(length) if length > self.longest => Err(Malformed::Long),
            Some(length) if self.bytes.len() < LENGTH + length => Ok(None),
            Some(_) => {
                let message = self.bytes.split_off(LENGTH);
                self.bytes = Vec::new();
                Ok(Some(message))
            }
        }
    }

    fn length(&self) -> Option<usize> {
        let (length, _) = self.bytes.split_first_chunk::<LENGTH>()?;
        usize::try_from(u32::from_le_bytes(*length)).ok()
    }
}
