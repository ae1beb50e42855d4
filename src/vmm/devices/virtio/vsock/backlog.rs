//! Bytes from the guest that the host's program has not taken yet.

use crate::devices::virtio::iovecs::{Iovecs, Spare};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

/// What room is made by, in bytes.
const STEP: usize = 8 << 10;

/// A queue of bytes. It has memory only while there is something in it.
#[derive(Debug, Default)]
pub(super) struct Backlog(VecDeque<u8>);

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends bytes; whoever does has room for them.
    pub fn push(&mut self, bytes: &[u8]) {
        // Little more than is needed: memory is what was promised, and not the next power of two.
        self.0.reserve_exact(bytes.len().max(STEP));
        self.0.extend(bytes);
    }

    /// Passes on what can be; returns how many bytes that were.
    pub fn write_to(&mut self, stream: impl AsFd, spare: &mut Spare) -> io::Result<usize> {
        let (first, second) = self.0.as_mut_slices();
        let mut iovecs = Iovecs::reusing(spare);
        iovecs.push(first);
        iovecs.push(second);
        let written = iovecs.write_to(&stream);
        iovecs.put_back(spare);
        let written = written?;
        self.0.drain(..written);
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
        Ok(written)
    }

    /// Drops all; returns how many bytes that were.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.0).len()
    }
}
