//! Bytes on their way.

use crate::sys::{Errno, File, Memory};

/// Bytes that came and are still to be dealt with, in memory that costs nothing while it was never used.
pub struct Buffer {
    memory: Memory,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn new(capacity: usize) -> Result<Self, Errno> {
        Ok(Self {
            memory: Memory::new(capacity)?,
            start: 0,
            end: 0,
        })
    }

    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How much more it takes.
    pub fn room(&self) -> usize {
        self.memory.bytes().len() - (self.end - self.start)
    }

    /// Where more goes; what was put there is counted with [`Self::added`].
    pub fn space(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        if start > 0 {
            self.memory.bytes_mut().copy_within(start..end, 0);
            (self.start, self.end) = (0, end - start);
        }
        let end = self.end;
        &mut self.memory.bytes_mut()[end..]
    }

    pub fn added(&mut self, count: usize) {
        self.end += count;
    }

    /// Takes as much of `bytes` as there is room for.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        self.added(count);
        count
    }

    /// The first bytes are dealt with.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads as much as there is room for; 0 at the end of the stream.
    pub fn read_from(&mut self, file: &File) -> Result<usize, Errno> {
        let count = file.read(self.space())?;
        self.added(count);
        Ok(count)
    }

    /// Writes as much as goes, and says how much that was.
    pub fn write_to(&mut self, file: &File) -> Result<usize, Errno> {
        let count = file.write(self.bytes())?;
        self.consume(count);
        Ok(count)
    }
}
