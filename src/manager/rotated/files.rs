//! The files, for who writes them.

use crate::LogLimits;
use kvmlet_sys::directory::Directory;
use rustix::fs::renameat;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

/// The name of a file; 0 is the one that is written.
pub(crate) fn name(base: &str, age: u32) -> String {
    match age {
        0 => base.into(),
        age => format!("{base}.{age}"),
    }
}

/// Opens a file for reading, if it is there.
pub(super) fn open(directory: &Directory, base: &str, age: u32) -> io::Result<Option<File>> {
    match directory.open_existing(&name(base, age)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which file it is, whatever its name.
pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// The files, for the one who writes them.
#[derive(Debug)]
pub(crate) struct Files {
    directory: Directory,
    base: &'static str,
    limits: LogLimits,
    current: File,
    bytes: u64,
}

impl Files {
    pub fn open(directory: &Directory, base: &'static str, limits: LogLimits) -> io::Result<Self> {
        let current = directory.open_to_append(base)?;
        let mut files = Self {
            bytes: current.metadata()?.len(),
            directory: directory.try_clone()?,
            base,
            limits,
            current,
        };
        files.end_last_line()?;
        Ok(files)
    }

    /// Who was killed while it wrote has left a part of a line.
    fn end_last_line(&mut self) -> io::Result<()> {
        let mut last = [b'\n'];
        if self.bytes > 0 {
            self.current.read_exact_at(&mut last, self.bytes - 1)?;
        }
        match last {
            [b'\n'] => Ok(()),
            _ => self.put(b"\n"),
        }
    }

    /// Writes whole lines: of a line, all or nothing.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let room = usize::try_from(self.limits.file_bytes.saturating_sub(self.bytes))
                .unwrap_or(usize::MAX);
            let fitting = match rest.len() <= room {
                true => rest.len(),
                false => rest[..room]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1),
            };
            if fitting == 0 && self.bytes > 0 {
                self.put_aside()?;
                continue;
            }
            // A line that is longer than a file has one of its own.
            let fitting = match fitting {
                0 => rest
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(rest.len(), |end| end + 1),
                fitting => fitting,
            };
            self.put(&rest[..fitting])?;
            rest = &rest[fitting..];
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.current.write_all(bytes) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What has been written of it is no line.
                self.current.set_len(self.bytes)?;
                Err(error)
            }
        }
    }

    /// Begins a new file. The oldest goes.
    fn put_aside(&mut self) -> io::Result<()> {
        let oldest = self.limits.files.max(1) - 1;
        let name = |age| name(self.base, age);
        self.directory.remove(&name(oldest))?;
        for age in (0..oldest).rev() {
            match renameat(&self.directory, name(age), &self.directory, name(age + 1)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.current = self.directory.open_to_append(self.base)?;
        self.bytes = self.current.metadata()?.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(place: &tempfile::TempDir, file_bytes: u64, files: u32) -> Files {
        let directory = Directory::open(place.path()).unwrap();
        Files::open(&directory, "log", LogLimits { file_bytes, files }).unwrap()
    }

    fn said(place: &tempfile::TempDir) -> Vec<String> {
        let read = |age| std::fs::read_to_string(place.path().join(name("log", age)));
        (0..6).map_while(|age| read(age).ok()).collect()
    }

    #[test]
    fn there_are_so_many_files_and_no_more() {
        let place = tempfile::tempdir().unwrap();
        let mut log = files(&place, 10, 3);
        log.write(b"one\ntwo\nthree\n").unwrap();
        assert_eq!(said(&place), ["three\n", "one\ntwo\n"]);
        log.write(b"a line that is too long\nfour\n").unwrap();
        assert_eq!(
            said(&place),
            ["four\n", "a line that is too long\n", "three\n"]
        );
        drop(log);
        let mut log = files(&place, 10, 3);
        log.write(b"five\n").unwrap();
        assert_eq!(said(&place)[0], "four\nfive\n");
        // Of one file nothing is kept when it is full.
        let place = tempfile::tempdir().unwrap();
        files(&place, 10, 1).write(b"123456789\nx\n").unwrap();
        assert_eq!(said(&place), ["x\n"]);
    }

    #[test]
    fn a_part_of_a_line_is_ended() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("log"), "{\"log\":\"ha").unwrap();
        files(&place, 100, 3).write(b"next\n").unwrap();
        assert_eq!(said(&place), ["{\"log\":\"ha\nnext\n"]);
    }
}
