//! Reading a log as it is written.

use super::{Entry, Reader, Selection};
use crate::watch::{Watch, Woken};
use kvmlet_sys::directory::Directory;
use std::io;
use std::os::fd::BorrowedFd;

/// A log that is read, and then as it is written.
#[derive(Debug)]
pub struct Follower {
    watch: Watch,
    reader: Reader,
    has_ended: bool,
}

impl Follower {
    /// Opens the log in a directory; there need not be one yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(directory: &Directory, selection: &Selection) -> io::Result<Self> {
        Ok(Self {
            // First, so that nothing is missed in between.
            watch: Watch::on(directory)?,
            reader: Reader::open(directory, selection)?,
            has_ended: false,
        })
    }

    /// Waits for the next entry; none when `end` can be read, which says that no more comes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn next(&mut self, end: BorrowedFd<'_>) -> io::Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.reader.next()? {
                return Ok(Some(entry));
            }
            if self.has_ended {
                return Ok(None);
            }
            self.has_ended = self.watch.wait(end)? == Woken::Other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogWriter, Stream};
    use super::*;
    use crate::{LogLimits, Moment};
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn what_is_written_is_followed_to_its_end() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let mut follower = Follower::open(&directory, &Selection::default()).unwrap();
        let (end, ended) = std::io::pipe().unwrap();
        let limits = LogLimits {
            file_bytes: 20_000,
            files: 5,
        };
        let mut log = LogWriter::open(&directory, limits).unwrap();
        let writer = std::thread::spawn(move || {
            for number in 0..500 {
                log.write(
                    Stream::Stdout,
                    format!("{number}\n").as_bytes(),
                    Moment::now(),
                );
                if number % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            assert_eq!(log.finish(Duration::from_secs(20)), 0);
            drop(ended);
        });
        let entries = std::iter::from_fn(|| follower.next(end.as_fd()).unwrap());
        let numbers: Vec<u32> = entries
            .map(|entry| {
                String::from_utf8(entry.text)
                    .unwrap()
                    .trim()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
        writer.join().unwrap();
    }
}
