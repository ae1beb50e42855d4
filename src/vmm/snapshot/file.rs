//! Files that VMs are kept in.

use super::difference::Difference;
use super::fault::Fault;
use super::layout::{BLOCK, MAGIC, MEMORY_START};
use super::parts::{First, Holes, Tail, exactly, first_part, lay_over, look, look_at, open};
use super::sections::{note, with_note};
use super::state::VmState;
use crate::memory::{Pager, Pages};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::temporary::{Temporary, check_place};
use rustix::fs::fsync;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
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
    /// The file that has memory from [`MEMORY_START`] on: this one, or its base. It can only be read.
    pub memory: File,
    /// What of memory is not as it is there.
    pub difference: Option<Difference>,
    /// Who has memory, instead of the file.
    pub pager: Option<Pager>,
}

impl Saved {
    /// Opens a file, and reads and checks all of it but memory, which is checked to be there.
    ///
    /// # Errors
    /// What is wrong with it, and [`Fault::Difference`] if it is of use with its base only. One that somebody has put into its base
    /// has all of its memory.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |fault| Error {
            path: path.into(),
            fault,
        };
        let opened = open(path).and_then(|file| Self::from_file(path, file));
        opened.map_err(refused)
    }

    /// The same of a file that is open, which is called that.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_file(path: &Path, file: File) -> Result<Self, Fault> {
        let first = look_at(&file)?;
        match first.state.base.is_none() || is_merged(&file, &first)? {
            true => Ok(Self::of(path, first, file, None)),
            false => Err(Fault::Difference),
        }
    }

    /// The same of a file that need have no more than its first part, of a VM whose memory somebody else has.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open_without_memory(path: &Path) -> Result<Self, Error> {
        let opened = open(path).and_then(|file| Ok((First::of(&file)?, file)));
        match opened {
            Ok((first, file)) => Ok(Self::of(path, first, file, None)),
            Err(fault) => Err(Error {
                path: path.into(),
                fault,
            }),
        }
    }

    /// The same of a difference and its base.
    ///
    /// # Errors
    /// What is wrong with one of them, or that they do not belong together; [`Fault::Whole`] if it has no base.
    pub fn open_over(path: &Path, base: &Path) -> Result<Self, Error> {
        let refused = |path: &Path, fault| Error {
            path: path.into(),
            fault,
        };
        let (file, first) = look(path).map_err(|fault| refused(path, fault))?;
        let Some(id) = first.state.base else {
            return Err(refused(path, Fault::Whole));
        };
        let memory = first.state.machine.memory_bytes;
        let tail = Tail::of(&file, memory, true).map_err(|fault| refused(path, fault))?;
        let below = Difference::base(base, id, memory, &tail);
        let below = below.map_err(|fault| refused(base, fault))?;
        let pages = tail.pages(memory).map_err(|fault| refused(path, fault))?;
        let difference = Difference {
            base: base.into(),
            file,
            pages,
        };
        Ok(Self::of(path, first, below, Some(difference)))
    }

    /// A difference to this one.
    pub(super) fn below(self, first: First, file: File, pages: Pages) -> Self {
        let difference = Difference {
            base: self.path.clone(),
            file,
            pages,
        };
        Self::of(&self.path, first, self.memory, Some(difference))
    }

    fn of(path: &Path, first: First, memory: File, difference: Option<Difference>) -> Self {
        Self {
            path: path.into(),
            state: first.state,
            note: first.note,
            memory,
            difference,
            pager: None,
        }
    }

    /// The file that memory is [mapped](Self::memory) from.
    pub fn mapped(&self) -> &Path {
        let base = self.difference.as_ref().map(|it| &it.base);
        base.unwrap_or(&self.path)
    }

    /// Reads memory, too, and compares it with its checksums. It takes as long as reading does.
    ///
    /// # Errors
    /// Where it has changed.
    pub fn verify(&self) -> Result<(), Error> {
        let changed = |path: &Path, fault| Error {
            path: path.into(),
            fault,
        };
        let (file, base) = match &self.difference {
            // What is wrong with the base is told of that.
            Some(it) => (&it.file, Some(&self.memory)),
            None => (&self.memory, None),
        };
        let memory = self.state.machine.memory_bytes;
        if let Some(base) = base {
            verify(base, None, memory, false).map_err(|fault| changed(self.mapped(), fault))?;
        }
        let is_difference = self.state.base.is_some();
        let over = self.difference.as_ref().zip(base);
        verify(file, over, memory, is_difference).map_err(|fault| changed(&self.path, fault))
    }
}

/// Notes something in a file that was written as a whole, and that has no name yet. It takes the place of what was noted there.
///
/// # Errors
/// When the file is none, cannot be written, or has no room for the note.
pub fn annotate(file: &File, note: &[u8]) -> io::Result<()> {
    file.write_all_at(&beginning(file, note)?, 0)
}

/// All that a file has but memory, with a note, which is [enough](Saved::open_without_memory) for whom somebody else gives memory.
///
/// # Errors
/// When the file cannot be read, is no snapshot, or has no room for the note.
pub fn beginning(file: &File, note: &[u8]) -> io::Result<Vec<u8>> {
    Ok(with_note(&first_part(file)?, note)?)
}

/// What is [noted](annotate) in a file, of which nothing else is looked at.
///
/// # Errors
/// When it cannot be read, or does not begin as a snapshot.
pub fn noted(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read = open(path).and_then(|file| noted_in(&file));
    read.map_err(|fault| Error {
        path: path.into(),
        fault,
    })
}

/// The same of a file that is open.
///
/// # Errors
/// What is wrong with it.
pub fn noted_in(file: &File) -> Result<Option<Vec<u8>>, Fault> {
    note(&first_part(file)?)
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

/// Refuses a place that has something which is [foreign](is_foreign): whoever writes a snapshot there would take it away.
///
/// # Errors
/// Of the kind `AlreadyExists` then, or why that cannot be looked at. What is no file is for whoever writes there to refuse.
fn check_replaced(path: &Path) -> io::Result<()> {
    let fault = match is_foreign(path) {
        Ok(false) => return Ok(()),
        Ok(true) => {
            let said = "what is there is no snapshot that could be replaced";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, said));
        }
        Err(Error { fault, .. }) => fault,
    };
    match fault {
        Fault::Kind => Ok(()),
        Fault::Read(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        fault => Err(fault.into()),
    }
}

/// Has a snapshot written by `fill`, for this user only. It appears when it is whole and on the disk, in the place of nothing
/// but an older one; `unwritten` says what keeps it from that.
///
/// # Errors
/// What `fill` says, or `unwritten` makes of what the kernel does.
pub fn write_whole<T, E>(
    path: &Path,
    unwritten: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&File) -> Result<T, E>,
) -> Result<T, E> {
    let (directory, name) = Directory::of_file(path).map_err(&unwritten)?;
    check_place(&directory, name).map_err(&unwritten)?;
    check_replaced(path).map_err(&unwritten)?;
    // It has no name until it is whole.
    let mut new = Temporary::private(&directory).map_err(&unwritten)?;
    let filled = fill(new.file())?;
    new.file().sync_all().map_err(&unwritten)?;
    check_replaced(path).map_err(&unwritten)?;
    new.publish(name).map_err(&unwritten)?;
    fsync(&directory).map_err(|error| unwritten(error.into()))?;
    Ok(filled)
}

/// Has somebody put the pages of a difference into its base, or all of it, as Firecracker's `snapshot-editor` does? Then its
/// checksums are those of what it has as memory. A difference alone is not the same from its first hole on that is none.
fn is_merged(file: &File, first: &First) -> Result<bool, Fault> {
    match verify(file, None, first.state.machine.memory_bytes, true) {
        Ok(()) => Ok(true),
        Err(Fault::Memory(_)) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Compares memory with checksums: that of a file, which may be a difference, or of a difference and its base.
fn verify(
    file: &File,
    over: Option<(&Difference, &File)>,
    memory: u64,
    is_difference: bool,
) -> Result<(), Fault> {
    let tail = Tail::of(file, memory, is_difference)?;
    let mut block = vec![0; BLOCK];
    let zeros = crc32fast::hash(&block).to_le_bytes();
    let below = over.map_or(file, |(_, base)| base);
    let mut holes = Holes::of(below, MEMORY_START + memory);
    for (number, expected) in (0u64..).zip(tail.checksums()) {
        let start = number * BLOCK as u64;
        let count = (memory - start).min(BLOCK as u64);
        let (range, place) = (start..start + count, MEMORY_START + start);
        let changes = over.is_some_and(|(it, _)| it.pages.parts_in(range).next().is_some());
        // Who has written it may have said that it is as large as no guest is.
        let is_hole = !changes && count == BLOCK as u64 && holes.has(place, count);
        let checksum = match is_hole {
            true => zeros,
            false => {
                let block = &mut block[..count as usize];
                exactly(below, block, place)?;
                if let Some((difference, _)) = over {
                    lay_over(block, start, &difference.pages, file)?;
                }
                crc32fast::hash(block).to_le_bytes()
            }
        };
        if checksum != expected {
            return Err(Fault::Memory(place));
        }
    }
    Ok(())
}
