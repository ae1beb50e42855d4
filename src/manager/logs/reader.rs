//! Reading a log, entry by entry.

use super::{Entry, Stream};
use crate::Moment;
use crate::rotated::Lines;
use kvmlet_sys::directory::Directory;
use std::collections::VecDeque;
use std::io;

/// No line is longer: each byte may take six, and the rest is small.
const LINE_BYTES: usize = super::PART_BYTES * 6 + 1024;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only this many entries, the last ones.
    pub tail: Option<u64>,
    /// Only what was written from then on.
    pub since: Option<Moment>,
    /// Only what was written until then.
    pub until: Option<Moment>,
    /// Whose.
    pub streams: Streams,
}

/// Who has written what is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// The service: its standard output and its standard error, and where something of them was dropped.
    #[default]
    Service,
    /// Everybody: the guest's kernel and init at its console, and kvmlet, too.
    All,
}

impl Selection {
    fn has(&self, entry: &Entry) -> bool {
        let is_early = self.since.is_some_and(|since| entry.time < since);
        let is_late = self.until.is_some_and(|until| entry.time > until);
        let is_hidden = matches!(entry.stream, Stream::Console | Stream::Kvmlet)
            && self.streams == Streams::Service;
        !is_early && !is_late && !is_hidden
    }
}

/// A log that is read. It is as it was when it was opened, and goes on where somebody writes.
#[derive(Debug)]
pub struct Reader {
    lines: Lines,
    selection: Selection,
    /// Those of the last ones that have not been handed out.
    last: VecDeque<Entry>,
}

impl Reader {
    /// Opens the log in a directory; there need not be one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(directory: &Directory, selection: &Selection) -> io::Result<Self> {
        // Entries that nobody wants to see do not count.
        let has_all = selection.streams == Streams::All;
        let tail = selection.tail.filter(|_| has_all);
        let mut reader = Self {
            lines: Lines::open(directory, super::FILES, LINE_BYTES, tail)?,
            selection: selection.clone(),
            last: VecDeque::new(),
        };
        if let Some(count) = selection.tail.filter(|_| !has_all) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let mut last = VecDeque::new();
            while let Some(entry) = reader.next()? {
                last.push_back(entry);
                if last.len() > count {
                    last.pop_front();
                }
            }
            reader.last = last;
        }
        Ok(reader)
    }

    /// The next entry; none where there is no more, yet.
    ///
    /// # Errors
    /// What the kernel says.
    #[allow(clippy::should_implement_trait)] // it goes on after the last one
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        if let Some(entry) = self.last.pop_front() {
            return Ok(Some(entry));
        }
        while let Some(line) = self.lines.next()? {
            if let Some(entry) = Entry::read(&line).filter(|entry| self.selection.has(entry)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FILES;
    use super::*;
    use crate::LogLimits;
    use crate::rotated::{Files, name};
    use std::fs::File;
    use std::time::Duration;

    fn line(number: u64) -> String {
        let mut line = String::new();
        Entry {
            time: Moment::since_1970(Duration::from_secs(number)),
            stream: Stream::Stdout,
            text: format!("{number}\n").into_bytes(),
        }
        .push(&mut line);
        line
    }

    fn log(lines: impl IntoIterator<Item = u64>) -> (tempfile::TempDir, Directory, Files) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let limits = LogLimits {
            file_bytes: 750,
            files: 3,
        };
        let mut files = Files::open(&directory, FILES, limits).unwrap();
        lines
            .into_iter()
            .for_each(|number| files.write(line(number).as_bytes()).unwrap());
        (place, directory, files)
    }

    fn all(reader: &mut Reader) -> Vec<u64> {
        let entries = std::iter::from_fn(|| reader.next().unwrap());
        entries
            .map(|entry| {
                String::from_utf8(entry.text)
                    .unwrap()
                    .trim()
                    .parse()
                    .unwrap()
            })
            .collect()
    }

    fn read(directory: &Directory, selection: Selection) -> Vec<u64> {
        all(&mut Reader::open(directory, &selection).unwrap())
    }

    #[test]
    fn the_last_entries_are_found_in_any_file() {
        let (_place, directory, _files) = log(0..25);
        assert!(directory.open_existing(&name(FILES, 2)).is_ok());
        let kept = read(&directory, Selection::default());
        assert!(
            kept.len() > 15 && kept.iter().copied().eq(25 - kept.len() as u64..25),
            "{kept:?}"
        );
        for count in [0, 1, 2, 9, 10, 11, 12, 15, 20, 100] {
            let tail = Some(count as u64);
            let found = read(
                &directory,
                Selection {
                    tail,
                    ..Selection::default()
                },
            );
            assert_eq!(found, kept[kept.len().saturating_sub(count)..], "{count}");
        }
    }

    #[test]
    fn what_the_service_has_not_written_is_shown_on_request_and_counts_only_then() {
        let (_place, directory, mut files) = log(0..3);
        for number in 10..20 {
            let other = ["console", "kvmlet"][number as usize % 2];
            let line = line(number).replace("stdout", other);
            files.write(line.as_bytes()).unwrap();
        }
        files.write(line(3).as_bytes()).unwrap();
        let of = |tail, streams| {
            let selection = Selection {
                tail,
                streams,
                ..Selection::default()
            };
            read(&directory, selection)
        };
        assert_eq!(of(None, Streams::Service), [0, 1, 2, 3]);
        assert_eq!(of(Some(2), Streams::Service), [2, 3]);
        assert_eq!(of(Some(2), Streams::All), [19, 3]);
        assert_eq!(of(None, Streams::All).len(), 14);
    }

    #[test]
    fn times_are_looked_at() {
        let (_place, directory, _files) = log(0..5);
        let at = |seconds| Some(Moment::since_1970(Duration::from_secs(seconds)));
        let of = |since, until| {
            read(
                &directory,
                Selection {
                    since,
                    until,
                    ..Selection::default()
                },
            )
        };
        assert_eq!(of(at(3), None), [3, 4]);
        assert_eq!(of(None, at(1)), [0, 1]);
        assert_eq!(of(at(2), at(2)), [2]);
    }

    #[test]
    fn a_reader_goes_on_over_all_files() {
        let (_place, directory, mut files) = log(0..3);
        let mut reader = Reader::open(
            &directory,
            &Selection {
                tail: Some(1),
                ..Selection::default()
            },
        )
        .unwrap();
        assert_eq!(all(&mut reader), [2]);
        for round in 0..20 {
            let (first, last) = (3 + round * 9, 3 + (round + 1) * 9);
            (first..last).for_each(|number| files.write(line(number).as_bytes()).unwrap());
            assert_eq!(all(&mut reader), (first..last).collect::<Vec<_>>());
        }
        // Who is too slow misses what is gone, and nothing else.
        (200..300).for_each(|number| files.write(line(number).as_bytes()).unwrap());
        let found = all(&mut reader);
        assert!(
            found.len() > 15 && found.ends_with(&[298, 299]),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_not_an_entry_is_passed_over() {
        let (place, directory, mut files) = log(0..1);
        files.write(b"{\"log\":\"ha\nnot json\n").unwrap();
        files.write(line(1).as_bytes()).unwrap();
        assert_eq!(read(&directory, Selection::default()), [0, 1]);
        // A part of a line may come to be one, or be taken back.
        let mut reader = Reader::open(&directory, &Selection::default()).unwrap();
        let (path, next) = (place.path().join("log"), line(2));
        let size = std::fs::metadata(&path).unwrap().len();
        let append = |text: &str| {
            std::io::Write::write_all(
                &mut File::options().append(true).open(&path).unwrap(),
                text.as_bytes(),
            )
            .unwrap()
        };
        append("{\"log\":\"never\\n\",\"stre");
        assert_eq!(all(&mut reader), [0, 1]);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(size)
            .unwrap();
        append(&next[..30]);
        assert_eq!(all(&mut reader), [0_u64; 0]);
        append(&next[30..]);
        assert_eq!(all(&mut reader), [2]);
        let none = tempfile::tempdir().unwrap();
        let none = Directory::open(none.path()).unwrap();
        assert_eq!(
            read(
                &none,
                Selection {
                    tail: Some(3),
                    ..Selection::default()
                }
            ),
            [0_u64; 0]
        );
    }
}
