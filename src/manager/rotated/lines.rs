//! Reading the files: from the oldest to the one that is written, line by line.

use super::files::{identity, open};
use kvmlet_sys::directory::Directory;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// There are no more files; a number that nobody has.
const MOST_FILES: u32 = 1000;
/// What is read at once at the most, and at least: memory that is not needed takes time, too.
const BLOCK: usize = 64 << 10;
const SMALL_BLOCK: usize = 4 << 10;

/// Files that are read, line by line. They are as they were when they were opened, and go on where somebody writes.
#[derive(Debug)]
pub(crate) struct Lines {
    directory: Directory,
    base: &'static str,
    /// No line is longer.
    line_bytes: usize,
    /// None where there is no file yet.
    file: Option<File>,
    /// Up to where all lines of the file were read.
    offset: u64,
    /// What was read behind that.
    ahead: Vec<u8>,
    /// How much of it was given away.
    given: usize,
    /// It was seen that the file is not written any more.
    is_old: bool,
}

impl Lines {
    /// Opens those in a directory; there need not be any. With `tail` only this many lines, the last ones.
    pub fn open(
        directory: &Directory,
        base: &'static str,
        line_bytes: usize,
        tail: Option<u64>,
    ) -> io::Result<Self> {
        let (file, offset) = match tail {
            Some(count) => from_end(directory, base, count)?,
            None => (oldest(directory, base)?, 0),
        };
        Ok(Self {
            directory: directory.try_clone()?,
            base,
            line_bytes,
            file,
            offset,
            ahead: Vec::new(),
            given: 0,
            is_old: false,
        })
    }

    /// The next line, without its end; none where there is no more, yet.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let rest = &self.ahead[self.given..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest[..end].to_vec();
                self.given += end + 1;
                return Ok(Some(line));
            }
            if rest.len() > self.line_bytes {
                // Nobody has written that.
                self.given = self.ahead.len();
                continue;
            }
            if !self.read_on()? && !self.go_on()? {
                return Ok(None);
            }
        }
    }

    /// Reads a block more of the file; false at its end. The beginning of a line is read again: its writer may have taken
    /// it back, for want of room.
    fn read_on(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        self.offset += self.given as u64;
        let had = self.ahead.len() - self.given;
        self.given = 0;
        let left = file.metadata()?.len().saturating_sub(self.offset);
        let block = usize::try_from(left).unwrap_or(BLOCK) + 1;
        self.ahead.resize(block.clamp(SMALL_BLOCK, BLOCK) + had, 0);
        let count = file.read_at(&mut self.ahead, self.offset)?;
        self.ahead.truncate(count);
        Ok(count > had)
    }

    /// Goes on with the next file; false if this is the one that is written.
    fn go_on(&mut self) -> io::Result<bool> {
        let next = match &self.file {
            None => oldest(&self.directory, self.base)?,
            Some(file) => {
                let this = identity(file)?;
                let found = age_of(&self.directory, self.base, this)?;
                if found == Some(0) {
                    return Ok(false);
                }
                if !self.is_old {
                    // What was written into it before it was put aside.
                    self.is_old = true;
                    return Ok(true);
                }
                match found {
                    Some(age) => open(&self.directory, self.base, age - 1)?,
                    None => oldest(&self.directory, self.base)?,
                }
            }
        };
        let Some(next) = next else {
            return Ok(false);
        };
        (self.file, self.offset, self.is_old) = (Some(next), 0, false);
        self.ahead.clear();
        self.given = 0;
        Ok(true)
    }
}

fn oldest(directory: &Directory, base: &str) -> io::Result<Option<File>> {
    let mut oldest = None;
    for age in 0..MOST_FILES {
        match open(directory, base, age)? {
            Some(file) => oldest = Some(file),
            // Between two renames there may be none of a number.
            None if age > 0 => break,
            None => {}
        }
    }
    Ok(oldest)
}

fn age_of(directory: &Directory, base: &str, wanted: (u64, u64)) -> io::Result<Option<u32>> {
    for age in 0..MOST_FILES {
        match open(directory, base, age)? {
            Some(file) if identity(&file)? == wanted => return Ok(Some(age)),
            None if age > 0 => break,
            _ => {}
        }
    }
    Ok(None)
}

/// Where the last `count` lines begin, or all there are.
fn from_end(directory: &Directory, base: &str, count: u64) -> io::Result<(Option<File>, u64)> {
    let mut missing = count;
    let mut start = (None, 0);
    for age in 0..MOST_FILES {
        let file = match open(directory, base, age)? {
            Some(file) => file,
            None if age > 0 => break,
            None => continue,
        };
        let end = file.metadata()?.len();
        let found = last_lines(&file, end, &mut missing)?;
        start = (Some(file), found);
        if missing == 0 {
            break;
        }
    }
    Ok(start)
}

/// Where the last `missing` lines of a file begin, or where it does; counts down those that it has.
fn last_lines(file: &File, end: u64, missing: &mut u64) -> io::Result<u64> {
    if *missing == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK];
    let mut at = end;
    let mut seen_end = false;
    while at > 0 {
        let size = at.min(BLOCK as u64) as usize;
        at -= size as u64;
        let block = &mut block[..size];
        file.read_exact_at(block, at)?;
        for (index, _) in block
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            // The first one that is met ends the last line.
            if std::mem::replace(&mut seen_end, true) {
                *missing -= 1;
                if *missing == 0 {
                    return Ok(at + index as u64 + 1);
                }
            }
        }
    }
    *missing -= u64::from(seen_end);
    Ok(0)
}
