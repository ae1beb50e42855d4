//! What the [claims](super::claims) in a directory come to, in one file beside them, so that a start need not read
//! them all.
//!
//! The claims are what counts, and the roll is a copy: who changes them spoils its text first and writes it anew
//! afterwards, with the time of the directory's last change. So what a process that was killed in between has left, or
//! one that knows of no roll (another version of kvmlet), does not pass for the truth, and whoever comes next counts. And each
//! owner has a cell, which the kernel marks when the owner is killed ([`obituary`](kvmlet_sys::obituary)). Should a mark be
//! missing, a dead one's share counts as taken until somebody is short of it: then all are counted in any case. With each
//! cell is the name of its owner's claim, so what a killed one has left is cleared without a look at the others.
//!
//! All this happens while the directory is locked, but for the kernel's marks.

use kvmlet_sys::directory::Directory;
use kvmlet_sys::obituary::{ENDED, Word};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

const NAME: &str = "roll";
const FORMAT: u32 = 2;
/// First the text, which ends with a zero, behind it the cells, and behind these the names of claims, filled with zeros.
const TEXT_BYTES: usize = 4096;
const CELLS: usize = 4096;
const CELL_BYTES: usize = 4;
const NAME_BYTES: usize = 64;
/// Text and cells.
const WHOLE_BYTES: usize = TEXT_BYTES + CELLS * CELL_BYTES;
/// Read with the text; there is more only on hosts with as many VMs.
const FIRST_CELLS: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Text<T> {
    format: u32,
    /// The directory, when this was written.
    stamp: [i64; 3],
    /// How many owners live whose end would not be seen.
    unwatched: usize,
    /// Cells from here on are free.
    used: usize,
    totals: T,
}

/// The roll of a directory that is locked.
pub(crate) struct Roll<T> {
    file: File,
    text: Option<Text<T>>,
    cells: Vec<u32>,
}

/// A cell of the roll that tells of this thread's end.
#[derive(Debug)]
pub(crate) struct Cell {
    /// It is noted in the claim.
    pub number: u32,
    word: Word,
}

impl Cell {
    /// Is this still its owner, and no process that was forked from it?
    pub fn is_held(&self) -> bool {
        self.word.is_held()
    }

    /// Says that its owner has ended, who lives and has let go of what is claimed. It does so itself, before others may have
    /// the cell.
    pub fn end(&self, directory: &Directory) -> io::Result<()> {
        let file = open(directory)?;
        file.write_all_at(&ENDED.to_ne_bytes(), cell_offset(self.number as usize))
    }
}

impl<T: Serialize + DeserializeOwned> Roll<T> {
    /// Opens the roll of a directory, which is made if it is not there.
    pub fn open(directory: &Directory) -> io::Result<Self> {
        let file = open(directory)?;
        let mut bytes = [0; TEXT_BYTES + FIRST_CELLS * CELL_BYTES];
        match file.metadata()?.len() >= WHOLE_BYTES as u64 {
            true => file.read_exact_at(&mut bytes, 0)?,
            // All of it is there from now on: a full disk shows here, each time until it has room, and not where the kernel makes
            // a mark.
            false => file.write_all_at(&[0; WHOLE_BYTES], 0)?,
        }
        let end = bytes[..TEXT_BYTES].iter().position(|byte| *byte == 0);
        let text: Option<Text<T>> = serde_json::from_slice(&bytes[..end.unwrap_or(0)]).ok();
        let stamp = stamp(directory)?;
        let is_true =
            |text: &Text<T>| text.format == FORMAT && text.used <= CELLS && text.stamp == stamp;
        let mut roll = Self {
            file,
            text: text.filter(is_true),
            cells: numbers(&bytes[TEXT_BYTES..]),
        };
        let used = roll.text.as_ref().map_or(CELLS, |text| text.used);
        match used <= FIRST_CELLS {
            true => roll.cells.truncate(used),
            false => roll.read_cells(used)?,
        }
        Ok(roll)
    }

    fn read_cells(&mut self, used: usize) -> io::Result<()> {
        let mut bytes = vec![0; used * CELL_BYTES];
        self.file.read_exact_at(&mut bytes, TEXT_BYTES as u64)?;
        self.cells = numbers(&bytes);
        Ok(())
    }

    /// What the claims come to, if that is known: an upper bound.
    pub fn totals(&self) -> Option<&T> {
        self.text.as_ref().map(|text| &text.totals)
    }

    /// Is there nothing to be cleared away, and nobody whose end would not be seen?
    pub fn is_calm(&self) -> bool {
        let text = self.text.as_ref();
        text.is_some_and(|text| text.unwatched == 0) && !self.cells.contains(&ENDED)
    }

    /// Those whose end the kernel has noted, by their cells and the names of their claims; `None` where that is not all that
    /// there may be to clear away.
    pub fn ended(&self) -> Option<Vec<(u32, String)>> {
        let is_watched = self.text.as_ref().is_some_and(|text| text.unwatched == 0);
        let cells = self.cells.iter().enumerate();
        let ended = cells.filter(|(_, word)| **word == ENDED);
        let name = |number| self.name(number).map(|name| (number as u32, name));
        is_watched.then(|| ended.map(|(number, _)| name(number)).collect())?
    }

    fn name(&self, number: usize) -> Option<String> {
        let mut name = [0; NAME_BYTES];
        self.file
            .read_exact_at(&mut name, name_offset(number))
            .ok()?;
        let name = CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
        (!name.is_empty() && !name.contains('/')).then(|| name.into())
    }

    /// Notes whose a cell is. Without that it takes a look at all to clear up after it.
    fn set_name(&self, number: usize, name: &str) {
        let mut bytes = [0; NAME_BYTES];
        if name.len() < NAME_BYTES {
            bytes[..name.len()].copy_from_slice(name.as_bytes());
        }
        if let Err(error) = self.file.write_all_at(&bytes, name_offset(number)) {
            log::debug!("who comes next may have to count: {error}");
        }
    }

    /// Says what the claims come to after all have been read, with the cells of those whose owners live, and the names of
    /// claims that nobody holds any more and that stay. The latter get cells of those that have ended, which are returned.
    pub fn recount<'a>(
        &mut self,
        directory: &Directory,
        totals: T,
        owners: impl Iterator<Item = Option<u32>>,
        left: impl Iterator<Item = &'a str>,
    ) -> io::Result<Vec<Option<u32>>> {
        self.spoil()?;
        self.read_cells(CELLS)?;
        let mut held = vec![false; CELLS];
        let mut unwatched = 0;
        for owner in owners {
            let cell = owner.map_or(CELLS, |number| number as usize);
            match self.cells.get(cell) {
                Some(word) if ![0, ENDED].contains(word) && !held[cell] => held[cell] = true,
                _ => unwatched += 1,
            }
        }
        for (number, held) in held.iter().enumerate() {
            // Those that are held are left to the kernel.
            if !held && self.cells[number] != 0 {
                self.clear(number)?;
            }
        }
        let mut given = Vec::new();
        for name in left {
            let free = held.iter().position(|held| !held);
            given.push(free.map(|number| number as u32));
            let Some(number) = free else {
                unwatched += 1;
                continue;
            };
            held[number] = true;
            self.set_name(number, name);
            self.set(number, ENDED)?;
        }
        let used = held
            .iter()
            .rposition(|held| *held)
            .map_or(0, |last| last + 1);
        self.cells.truncate(used);
        self.text = Some(Text {
            format: FORMAT,
            stamp: [0; 3],
            unwatched,
            used,
            totals,
        });
        self.write(directory)?;
        Ok(given)
    }

    /// Enters an owner, which this thread is: `note` makes the claim of this `name`, which is to name the cell, if there is one.
    pub fn enter<C>(
        &mut self,
        directory: &Directory,
        name: &str,
        totals: T,
        note: impl FnOnce(Option<u32>) -> io::Result<C>,
    ) -> io::Result<(C, Option<Cell>)> {
        self.spoil()?;
        let cell = self.take_cell();
        if let Some(cell) = &cell {
            self.set_name(cell.number as usize, name);
        }
        let claim = match (note(cell.as_ref().map(|cell| cell.number)), &cell) {
            (Ok(claim), _) => claim,
            (Err(error), None) => return Err(error),
            (Err(error), Some(cell)) => {
                self.clear(cell.number as usize)?;
                return Err(error);
            }
        };
        if let Some(text) = &mut self.text {
            text.totals = totals;
            text.unwatched += usize::from(cell.is_none());
        }
        if let Err(error) = self.write(directory) {
            log::debug!("the next start has to count: {error}");
        }
        Ok((claim, cell))
    }

    /// Takes an owner from the roll: `remove` removes its claim.
    pub fn leave(
        &mut self,
        directory: &Directory,
        cell: Option<u32>,
        settle: impl FnOnce(&mut T),
        remove: impl FnOnce(),
    ) -> io::Result<()> {
        self.spoil()?;
        remove();
        if let Some(number) = cell {
            self.clear(number as usize)?;
        }
        if let Some(text) = &mut self.text {
            settle(&mut text.totals);
            text.unwatched -= usize::from(cell.is_none() && text.unwatched > 0);
        }
        self.write(directory)
    }

    /// Says that what has changed in the directory since this was opened is no claim.
    pub fn stamp(&mut self, directory: &Directory) -> io::Result<()> {
        let now = stamp(directory)?;
        match self.text.as_ref().is_some_and(|text| text.stamp != now) {
            true => self.write(directory),
            false => Ok(()),
        }
    }

    /// Does not believe it any more: the claims are to be counted.
    pub fn disbelieve(&mut self) -> io::Result<()> {
        self.text = None;
        self.spoil()
    }

    /// Whoever comes next counts, unless all is written anew.
    pub fn spoil(&self) -> io::Result<()> {
        self.file.write_all_at(&[0], 0)
    }

    fn clear(&mut self, number: usize) -> io::Result<()> {
        self.set(number, 0)
    }

    fn set(&mut self, number: usize, word: u32) -> io::Result<()> {
        if let Some(cell) = self.cells.get_mut(number) {
            *cell = word;
        }
        self.file
            .write_all_at(&word.to_ne_bytes(), cell_offset(number))
    }

    fn take_cell(&mut self) -> Option<Cell> {
        let text = self.text.as_mut()?;
        let free = self.cells.iter().position(|cell| *cell == 0);
        let number = free.unwrap_or(self.cells.len());
        if number >= CELLS {
            return None;
        }
        // Without one it is looked after in the old way.
        let word = Word::take(&self.file, cell_offset(number)).unwrap_or_else(|error| {
            log::debug!("the end of this process would not be noted: {error}");
            None
        })?;
        text.used = text.used.max(number + 1);
        Some(Cell {
            number: number as u32,
            word,
        })
    }

    fn write(&mut self, directory: &Directory) -> io::Result<()> {
        let Some(text) = &mut self.text else {
            return Ok(());
        };
        text.stamp = stamp(directory)?;
        let mut bytes = serde_json::to_vec(text)?;
        bytes.push(0);
        match bytes.len() <= TEXT_BYTES {
            true => self.file.write_all_at(&bytes, 0),
            // It stays spoilt, and all are counted each time.
            false => Ok(()),
        }
    }
}

/// The file, or a new one in place of what is none, or has a name elsewhere as well: it is written to.
fn open(directory: &Directory) -> io::Result<File> {
    let found = directory.open_or_make(NAME);
    if let Ok(file) = &found {
        let about = file.metadata()?;
        if about.is_file() && about.nlink() == 1 {
            return found;
        }
    }
    directory.remove(NAME)?;
    directory.make_new(NAME)
}

/// What changes with each claim that is made or removed: the directory's time, and in memory its size.
fn stamp(directory: &Directory) -> io::Result<[i64; 3]> {
    let stat = directory.stat()?;
    Ok([stat.st_mtime, stat.st_mtime_nsec as i64, stat.st_size])
}

fn cell_offset(number: usize) -> u64 {
    (TEXT_BYTES + number * CELL_BYTES) as u64
}

fn name_offset(number: usize) -> u64 {
    (WHOLE_BYTES + number * NAME_BYTES) as u64
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}
