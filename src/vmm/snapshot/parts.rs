//! The parts of a file: what is before memory, and what is behind it.

use super::fault::Fault;
use super::layout::{
    END_BYTES, HEAD_BYTES, MEMORY_START, blocks, difference_bytes, end_mark, file_bytes,
};
use super::sections::{decode, head, note};
use super::state::VmState;
use crate::memory::{PAGE_BYTES, Pages};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// What is in the first part of a file.
pub(super) struct First {
    pub state: VmState,
    pub note: Option<Vec<u8>>,
}

impl First {
    pub fn of(file: &File) -> Result<Self, Fault> {
        let bytes = first_part(file)?;
        let (state, note) = (decode(&bytes)?, note(&bytes)?);
        let memory = state.machine.memory_bytes;
        // No guest has more; then nothing of what follows overflows.
        match memory > 1 << 42 || !memory.is_multiple_of(PAGE_BYTES) {
            true => Err(Fault::Length),
            false => Ok(Self { state, note }),
        }
    }
}

/// Opens a file to read it.
pub(super) fn open(path: &Path) -> Result<File, Fault> {
    // A FIFO would wait for a writer.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Fault::Kind),
    }
}

/// What is before memory, as it is there.
pub(super) fn first_part(file: &File) -> Result<Vec<u8>, Fault> {
    let mut begin = [0; HEAD_BYTES];
    exactly(file, &mut begin, 0)?;
    let mut bytes = vec![0; head(&begin)?];
    exactly(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Opens a file, and checks all of it but memory.
pub(super) fn look(path: &Path) -> Result<(File, First), Fault> {
    let file = open(path)?;
    let first = look_at(&file)?;
    Ok((file, first))
}

/// Checks all of an open file but memory.
pub(super) fn look_at(file: &File) -> Result<First, Fault> {
    let first = First::of(file)?;
    let state = &first.state;
    Tail::of(file, state.machine.memory_bytes, state.base.is_some())?;
    Ok(first)
}

/// What is behind memory, once it and the mark at the end are what was written.
pub(super) struct Tail {
    /// Checksums, and what a difference has beside them.
    bytes: Vec<u8>,
    table: usize,
    /// The mark itself.
    pub mark: [u8; END_BYTES],
}

impl Tail {
    pub fn of(file: &File, memory: u64, is_difference: bool) -> Result<Self, Fault> {
        let length = match is_difference {
            true => difference_bytes(memory),
            false => file_bytes(memory),
        };
        match file.metadata()?.len() {
            found if found < length => return Err(Fault::Short),
            found if found > length => return Err(Fault::Length),
            _ => {}
        }
        let start = MEMORY_START + memory;
        let mut bytes = vec![0; (length - start) as usize - END_BYTES];
        exactly(file, &mut bytes, start)?;
        let mut mark = [0; END_BYTES];
        exactly(file, &mut mark, length - END_BYTES as u64)?;
        let table = 4 * blocks(memory) as usize;
        match mark == end_mark(length, crc32fast::hash(&bytes)) {
            true => Ok(Self { bytes, table, mark }),
            false => Err(Fault::End),
        }
    }

    /// The checksum of each block of memory.
    pub fn checksums(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes[..self.table].chunks_exact(4)
    }

    /// Of a difference: which pages it has.
    pub fn pages(&self, memory: u64) -> Result<Pages, Fault> {
        let map = &self.bytes[self.table..self.bytes.len() - END_BYTES];
        Pages::of_bytes(memory, map).ok_or(Fault::Pages)
    }

    /// Of a difference: the mark at the end of its base.
    pub fn base_mark(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - END_BYTES..]
    }
}

/// Replaces the pages of a difference in what is at a place of memory in its base.
pub(super) fn lay_over(
    block: &mut [u8],
    start: u64,
    pages: &Pages,
    file: &File,
) -> Result<(), Fault> {
    for part in pages.parts_in(start..start + block.len() as u64) {
        let inside = (part.start - start) as usize..(part.end - start) as usize;
        exactly(file, &mut block[inside], MEMORY_START + part.start)?;
    }
    Ok(())
}

pub(super) fn exactly(file: &File, bytes: &mut [u8], place: u64) -> Result<(), Fault> {
    file.read_exact_at(bytes, place)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Short,
            _ => Fault::Read(error),
        })
}

/// Tells which parts of a file are holes: asked in the order of their places.
pub(super) struct Holes<'a> {
    file: &'a File,
    end: u64,
    /// There is something from there on, at the earliest.
    data: u64,
}

impl<'a> Holes<'a> {
    pub fn of(file: &'a File, end: u64) -> Self {
        Self { file, end, data: 0 }
    }

    /// Is that one?
    pub fn has(&mut self, place: u64, count: u64) -> bool {
        if self.data <= place {
            self.data = match seek(self.file, SeekFrom::Data(place)) {
                Ok(data) => data,
                Err(Errno::NXIO) => self.end,
                // A file system that does not know.
                Err(_) => place,
            };
        }
        self.data >= place + count
    }
}
