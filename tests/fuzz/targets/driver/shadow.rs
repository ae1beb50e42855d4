//! What guest memory must look like: as the driver has written it, but for what the device was given to write.

use super::ram;
use std::ops::Range;

pub struct Shadow {
    contents: Vec<u8>,
    /// Places in it that the device may write.
    given: Vec<Range<usize>>,
}

impl Shadow {
    pub fn of_empty_ram() -> Self {
        let mut contents = Vec::new();
        ram::contents(&mut contents);
        Self {
            contents,
            given: Vec::new(),
        }
    }

    /// The device may write there from now on.
    pub fn give(&mut self, address: u64, bytes: u64) {
        if let Some(start) = ram::index_of(address) {
            self.given
                .push(start..(start + bytes as usize).min(self.contents.len()));
        }
    }

    /// Nothing has changed elsewhere. What drivers write in place (rings and tables, buffers) they write by
    /// [`wrote`](Self::wrote).
    pub fn compare(&mut self) {
        let mut now = Vec::new();
        ram::contents(&mut now);
        for range in self.given.drain(..) {
            now[range.clone()].copy_from_slice(&self.contents[range]);
        }
        // Byte by byte, and counted, only where it tells something.
        if now != self.contents {
            let differs = now
                .iter()
                .zip(&self.contents)
                .position(|(now, then)| now != then);
            panic!("{differs:x?} of memory was written, which no request gave");
        }
    }

    /// The driver has written there.
    pub fn wrote(&mut self, address: u64, bytes: &[u8]) {
        if let Some(start) = ram::index_of(address) {
            let end = (start + bytes.len()).min(self.contents.len());
            self.contents[start..end].copy_from_slice(&bytes[..end - start]);
        }
    }
}
