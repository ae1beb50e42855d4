//! Files that VMs are kept in.

use super::fault::Fault;
use super::layout::{
    BLOCK, END_BYTES, HEAD_BYTES, MAGIC, MEMORY_START, blocks, end_mark, file_bytes, memory_of,
};
use super::sections::{decode, head, note, with_note};
use super::state::VmState;
use super::stream::{PIECE_BYTES, PIECE_HEAD};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a snapshot is not read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use snapshot `{}`", path.display())]
pub struct Error {
    /// What the user named.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// A VM in a file.
#[derive(Debug)]
pub struct Saved {
    /// The file, for messages.
    pub path: PathBuf,
    /// All but its memory.
    pub state: VmState,
    /// What whoever has written it has [noted](annotate), which nobody has looked at.
    pub note: Option<Vec<u8>>,
    /// The file, which has memory from [`MEMORY_START`] on. It can only be read.
    pub memory: File,
}

impl Saved {
    /// Opens a file, and reads and checks all of it but memory, which is checked to be there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = open(path);
        let path = PathBuf::from(path);
        match opened.and_then(|file| Ok((read(&file)?, file))) {
            Ok(((state, note), memory)) => Ok(Self {
                path,
                state,
                note,
                memory,
            }),
            Err(fault) => Err(Error { path, fault }),
        }
    }

    /// Reads memory, too, and compares it with its checksums. It takes as long as reading does.
    ///
    /// # Errors
    /// Where it has changed.
    pub fn verify(&self) -> Result<(), Error> {
        let memory = self.state.machine.memory_bytes;
        verify(&self.memory, memory).map_err(|fault| Error {
            path: self.path.clone(),
            fault,
        })
    }
}

/// Notes something in a file that was written as a whole, and that has no name yet. It takes the place of what was noted there.
///
/// # Errors
/// When the file is none, cannot be written, or has no room for the note.
pub fn annotate(file: &File, note: &[u8]) -> io::Result<()> {
    let annotated = first_part(file).and_then(|bytes| with_note(&bytes, note));
    let bytes = annotated.map_err(|fault| match fault {
        Fault::Read(error) => error,
        fault => io::Error::other(fault),
    })?;
    file.write_all_at(&bytes, 0)
}

/// What is [noted](annotate) in a file, of which nothing else is looked at.
///
/// # Errors
/// When it cannot be read, or does not begin as a snapshot.
pub fn noted(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read = open(path).and_then(|file| note(&first_part(&file)?));
    read.map_err(|fault| Error {
        path: path.into(),
        fault,
    })
}

/// Is that something else than a snapshot, or the beginning of one? A file that is empty is nothing yet.
///
/// # Errors
/// When it cannot be looked at, or is not there.
pub fn is_foreign(path: &Path) -> Result<bool, Error> {
    let looked = open(path).and_then(|file| {
        let mut begin = Vec::new();
        file.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
        Ok(!begin.is_empty() && begin != MAGIC)
    });
    looked.map_err(|fault| Error {
        path: path.into(),
        fault,
    })
}

fn open(path: &Path) -> Result<File, Fault> {
    // A FIFO would wait for a writer.
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Fault::Kind),
    }
}

fn first_part(file: &File) -> Result<Vec<u8>, Fault> {
    let mut begin = [0; HEAD_BYTES];
    exactly(file, &mut begin, 0)?;
    let mut bytes = vec![0; head(&begin)?];
    exactly(file, &mut bytes, 0)?;
    Ok(bytes)
}

fn read(file: &File) -> Result<(VmState, Option<Vec<u8>>), Fault> {
    let bytes = first_part(file)?;
    let state = decode(&bytes)?;
    let memory = state.machine.memory_bytes;
    // No guest has more; then nothing below overflows.
    if memory > 1 << 42 {
        return Err(Fault::Length);
    }
    let expected = file_bytes(memory);
    match file.metadata()?.len() {
        length if length < expected => return Err(Fault::Short),
        length if length > expected => return Err(Fault::Length),
        _ => {}
    }
    table(file, memory)?;
    Ok((state, note(&bytes)?))
}

/// The checksums of memory, once they and the mark at the end are what was written.
fn table(file: &File, memory: u64) -> Result<Vec<u8>, Fault> {
    let mut table = vec![0; 4 * blocks(memory) as usize];
    exactly(file, &mut table, MEMORY_START + memory)?;
    let mut mark = [0; END_BYTES];
    let length = file_bytes(memory);
    exactly(file, &mut mark, length - END_BYTES as u64)?;
    match mark == end_mark(length, crc32fast::hash(&table)) {
        true => Ok(table),
        false => Err(Fault::End),
    }
}

fn verify(file: &File, memory: u64) -> Result<(), Fault> {
    let table = table(file, memory)?;
    let mut block = vec![0; BLOCK];
    for (number, expected) in (0u64..).zip(table.chunks_exact(4)) {
        let start = number * BLOCK as u64;
        let count = (memory - start).min(BLOCK as u64) as usize;
        let place = MEMORY_START + start;
        exactly(file, &mut block[..count], place)?;
        if crc32fast::hash(&block[..count]).to_le_bytes() != expected {
            return Err(Fault::Memory(place));
        }
    }
    Ok(())
}

fn exactly(file: &File, bytes: &mut [u8], place: u64) -> Result<(), Fault> {
    file.read_exact_at(bytes, place)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Short,
            _ => Fault::Read(error),
        })
}

/// Writes a file from [pieces](super::put) that somebody tells, who need not be believed: no more than a file of that
/// length.
pub struct Sink<'a> {
    file: &'a File,
    most: u64,
    written: u64,
    /// What is written at once, and where.
    pending: (u64, Vec<u8>),
}

/// Written at once: pieces that follow each other.
const WRITE_BYTES: usize = 1 << 20;
/// What was told may be told again, as often on the average.
const MOST_TIMES: u64 = 16;

impl<'a> Sink<'a> {
    /// To an empty file that becomes no longer than `most`.
    pub fn new(file: &'a File, most: u64) -> Self {
        Self {
            file,
            most,
            written: 0,
            pending: (0, Vec::with_capacity(WRITE_BYTES)),
        }
    }

    /// Writes all that is told until the last piece, and checksums of memory; returns the length of the file, which can be
    /// read as well.
    ///
    /// # Errors
    /// When it ends before that ([`UnexpectedEof`](io::ErrorKind::UnexpectedEof)), tells of more than there can be, or the
    /// file cannot be written.
    pub fn fill(mut self, mut from: impl Read) -> io::Result<u64> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let mut head = [0; PIECE_HEAD];
            from.read_exact(&mut head)?;
            let (place, count) = parse(head);
            let end = place.checked_add(count.into());
            let (count, fits) = (count as usize, end.is_some_and(|end| end <= self.most));
            let most = self.most.saturating_mul(MOST_TIMES);
            if count > PIECE_BYTES || !fits || self.written + count as u64 > most {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if count == 0 {
                self.flush()?;
                self.file.set_len(place)?;
                finish(self.file, place)?;
                return Ok(place);
            }
            from.read_exact(&mut piece[..count])?;
            self.written += count as u64;
            self.put(place, &piece[..count])?;
        }
    }

    fn put(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let (start, pending) = &self.pending;
        let follows = start + pending.len() as u64 == place;
        if !follows || pending.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
            self.pending.0 = place;
        }
        self.pending.1.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (start, pending) = &mut self.pending;
        self.file.write_all_at(pending, *start)?;
        pending.clear();
        Ok(())
    }
}

/// Writes what is behind the memory of a file of that length.
fn finish(file: &File, length: u64) -> io::Result<()> {
    let memory = memory_of(length).ok_or(io::ErrorKind::InvalidData)?;
    let mut table = Vec::new();
    let mut block = vec![0; BLOCK];
    let zeros = crc32fast::hash(&block);
    // What is a hole is not read.
    let mut data = MEMORY_START;
    for start in (0..memory).step_by(BLOCK) {
        let (place, count) = (MEMORY_START + start, (memory - start).min(BLOCK as u64));
        if data < place + 1 {
            data = match seek(file, SeekFrom::Data(place)) {
                Ok(data) => data,
                Err(Errno::NXIO) => length,
                // A file system that does not know.
                Err(_) => place,
            };
        }
        let is_whole = count == BLOCK as u64;
        let checksum = match is_whole && data >= place + count {
            true => zeros,
            false => {
                let block = &mut block[..count as usize];
                file.read_exact_at(block, place)?;
                crc32fast::hash(block)
            }
        };
        table.extend(checksum.to_le_bytes());
    }
    let checksum = crc32fast::hash(&table);
    table.extend(end_mark(length, checksum));
    file.write_all_at(&table, MEMORY_START + memory)
}

/// Place and length.
fn parse(head: [u8; PIECE_HEAD]) -> (u64, u32) {
    let (mut place, mut count) = ([0; 8], [0; 4]);
    place.copy_from_slice(&head[..8]);
    count.copy_from_slice(&head[8..]);
    (u64::from_le_bytes(place), u32::from_le_bytes(count))
}
