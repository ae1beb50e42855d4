//! A record that changes often, in a file of two places that are written in turn: whoever reads it sees the newest that is
//! whole. A change takes no new space, so a full disk keeps nobody from telling how a VM has ended, and a writer that is
//! killed, or a host that loses its power, leaves the record before.

use crate::sealed::{self, Broken};
use kvmlet_sys::directory::Directory;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size of a place: a page, which the kernel writes as one.
const BYTES: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Numbered<T> {
    sequence: u64,
    record: T,
}

/// The file, for whoever may write it.
#[derive(Debug)]
pub(crate) struct Slots {
    file: File,
    /// Of the record that it has now.
    sequence: u64,
}

impl Slots {
    /// Makes the file, with its first record, and takes all the space that it will ever need.
    pub fn make(directory: &Directory, name: &str, first: &impl Serialize) -> io::Result<()> {
        let file = directory.make_new(name)?;
        file.write_all_at(&padded(1, first)?, 0)?;
        // The second place holds nothing yet.
        file.write_all_at(&[b' '; BYTES], BYTES as u64)
    }

    /// To write further records into an open file, by whoever is alone in that.
    pub fn of(file: File) -> io::Result<Self> {
        let sequence = newest::<serde::de::IgnoredAny>(&file)?.map_or(0, |found| found.sequence);
        Ok(Self { file, sequence })
    }

    /// Writes the next record.
    pub fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let next = self.sequence + 1;
        let place = (next + 1) % 2 * BYTES as u64;
        self.file.write_all_at(&padded(next, record)?, place)?;
        self.sequence = next;
        Ok(())
    }

    /// Has it survive a loss of power.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The newest record of a file.
pub(crate) fn read<T: DeserializeOwned>(file: &File) -> io::Result<Result<T, Broken>> {
    Ok(newest(file)?.map(|found| found.record))
}

fn newest<T: DeserializeOwned>(file: &File) -> io::Result<Result<Numbered<T>, Broken>> {
    let mut bytes = [0; 2 * BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    let (first, second) = bytes.split_at(BYTES);
    let open = sealed::open::<Numbered<T>>;
    Ok(match (open(first), open(second)) {
        (Ok(one), Ok(other)) => Ok(if one.sequence > other.sequence {
            one
        } else {
            other
        }),
        // One that is whole and not understood is the newest, and the one before it is not the truth any more.
        (Err(Broken::Unknown(error)), _) | (_, Err(Broken::Unknown(error))) => {
            Err(Broken::Unknown(error))
        }
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(broken), Err(_)) => Err(broken),
    })
}

fn padded(sequence: u64, record: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = sealed::seal(&Numbered { sequence, record })?;
    if text.len() > BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    text.resize(BYTES, b' ');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> (tempfile::TempDir, Directory, Slots) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        Slots::make(&directory, "state", &"first").unwrap();
        let slots = Slots::of(directory.open_or_make("state").unwrap()).unwrap();
        (place, directory, slots)
    }

    fn said(directory: &Directory) -> Result<String, Broken> {
        read(&directory.open_existing("state").unwrap()).unwrap()
    }

    #[test]
    fn the_newest_counts() {
        let (_place, directory, mut slots) = slots();
        assert_eq!(said(&directory).unwrap(), "first");
        for number in 0..5 {
            slots.write(&format!("number {number}")).unwrap();
            assert_eq!(said(&directory).unwrap(), format!("number {number}"));
        }
        // And goes on counting where another has stopped.
        let mut again = Slots::of(directory.open_or_make("state").unwrap()).unwrap();
        again.write(&"again").unwrap();
        assert_eq!(said(&directory).unwrap(), "again");
        assert!(again.write(&"x".repeat(BYTES)).is_err());
        assert_eq!(said(&directory).unwrap(), "again");
        assert_eq!(slots.file.metadata().unwrap().len(), 2 * BYTES as u64);
    }

    #[test]
    fn what_was_written_in_part_is_as_if_it_had_not_been() {
        let (_place, directory, mut slots) = slots();
        slots.write(&"second").unwrap();
        for (length, next) in [(0, "third"), (1, "third"), (20, "third"), (60, "third")] {
            let text = padded(3, &next).unwrap();
            slots.file.write_all_at(&[0; BYTES], 0).unwrap();
            slots.file.write_all_at(&text[..length], 0).unwrap();
            assert_eq!(said(&directory).unwrap(), "second");
            // The next writer takes the broken place.
            let mut next = Slots::of(directory.open_or_make("state").unwrap()).unwrap();
            assert_eq!(next.sequence, 2);
            next.write(&"fourth").unwrap();
            assert_eq!(said(&directory).unwrap(), "fourth");
            next.sequence = 1;
            next.write(&"second").unwrap();
        }
    }

    #[test]
    fn what_a_later_version_says_is_not_passed_over() {
        let (_place, directory, mut slots) = slots();
        slots.write(&["of", "another", "kind"]).unwrap();
        assert!(matches!(said(&directory), Err(Broken::Unknown(_))));
    }
}
