//! Logs that are written, on good disks and bad ones.

use super::super::{Reader, Selection, Streams};
use super::*;
use std::os::unix::fs::MetadataExt;

fn log() -> (tempfile::TempDir, Directory, LogWriter) {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::open(place.path()).unwrap();
    let log = LogWriter::open(&directory, LogLimits::default()).unwrap();
    (place, directory, log)
}

fn entries(directory: &Directory) -> Vec<Entry> {
    let all = Selection {
        streams: Streams::All,
        ..Selection::default()
    };
    let mut reader = Reader::open(directory, &all).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn what_was_written_is_there_after_the_end() {
    let (_place, directory, mut log) = log();
    let now = Moment::now();
    log.write(Stream::Stdout, b"one\ntw", now);
    log.write(Stream::Stderr, b"\xff\r\n", now);
    log.write(Stream::Stdout, b"o\nrest", now);
    assert!(log.due(now).is_some());
    assert_eq!(log.finish(LONG), 0);
    let found: Vec<_> = entries(&directory)
        .into_iter()
        .map(|entry| (entry.stream, entry.text))
        .collect();
    let expected = [
        (Stream::Stdout, &b"one\n"[..]),
        (Stream::Stderr, b"\xff\r\n"),
        (Stream::Stdout, b"two\n"),
        (Stream::Stdout, b"rest"),
    ];
    assert_eq!(
        found,
        expected.map(|(stream, text)| (stream, text.to_vec()))
    );
}

#[test]
fn a_guest_without_end_fills_neither_disk_nor_memory() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::open(place.path()).unwrap();
    let limits = LogLimits {
        file_bytes: 300_000,
        files: 3,
    };
    let mut log = LogWriter::open(&directory, limits).unwrap();
    let noise = "all work and no play\n".repeat(3000);
    for _ in 0..60 {
        log.write(Stream::Stdout, noise.as_bytes(), Moment::now());
        assert!(lock(&log.shared.queue).lines.capacity() <= 2 * QUEUE_BYTES);
    }
    log.finish(LONG);
    let files: Vec<u64> = std::fs::read_dir(place.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().size())
        .collect();
    assert!(
        files.len() == 3 && files.iter().all(|size| *size <= 300_000),
        "{files:?}"
    );
    assert!(!entries(&directory).is_empty());
}

/// A queue whose thread does not come to its turn, as on a disk that does not answer.
fn stuck() -> (tempfile::TempDir, Directory, LogWriter, Files) {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::open(place.path()).unwrap();
    let files = Files::open(&directory, super::super::FILES, LogLimits::default()).unwrap();
    let log = LogWriter {
        shared: Arc::default(),
        partials: Stream::ALL.map(Partial::of),
        line: String::new(),
        lost: Lost::default(),
    };
    (place, directory, log, files)
}

#[test]
fn a_disk_that_stands_still_keeps_nobody_waiting_and_what_is_dropped_is_told() {
    let (_place, directory, mut log, files) = stuck();
    let since = Instant::now();
    let line = [&[b'x'; 999][..], b"\n"].concat();
    for _ in 0..1000 {
        log.write(Stream::Stdout, &line, Moment::now());
    }
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    let lost = log.lost;
    assert!(
        (700..1000).contains(&lost.entries) && lost.bytes == lost.entries * 1000,
        "{lost:?}"
    );
    // It answers again.
    let theirs = log.shared.clone();
    let thread = std::thread::spawn(move || theirs.serve(files));
    while !lock(&log.shared.queue).lines.is_empty() {
        std::thread::yield_now();
    }
    log.write(Stream::Stdout, b"after\n", Moment::now());
    assert_eq!(log.finish(LONG), 0);
    thread.join().unwrap();
    let entries = entries(&directory);
    let kept = 1000 - lost.entries as usize;
    let told = String::from_utf8(entries[kept].text.clone()).unwrap();
    let expected = format!(
        "{} entries with {} bytes were dropped here",
        lost.entries, lost.bytes
    );
    assert!(
        told.starts_with(&expected) && entries[kept].stream == Stream::Dropped,
        "{told}"
    );
    assert_eq!(
        (entries.len(), &entries[kept + 1].text[..]),
        (kept + 2, &b"after\n"[..])
    );
    // Whoever reads what the service has written is told, too.
    let mut reader = Reader::open(&directory, &Selection::default()).unwrap();
    let mut read = std::iter::from_fn(|| reader.next().unwrap());
    assert!(read.any(|entry| entry.stream == Stream::Dropped));
}

#[test]
fn what_is_dropped_of_the_console_is_told_to_who_reads_that() {
    let (_place, _directory, mut log, _files) = stuck();
    let line = [&[b'x'; 9999][..], b"\n"].concat();
    (0..100).for_each(|_| log.write(Stream::Console, &line, Moment::now()));
    assert!(log.lost.entries > 0 && !log.lost.of_service);
    log.write(Stream::Stderr, b"oops\n", Moment::now());
    assert!(log.lost.of_service);
}

#[test]
fn the_end_is_not_waited_for_longer_than_one_is_ready_to() {
    let (_place, _directory, mut log, _files) = stuck();
    log.write(Stream::Stdout, b"one\ntwo\nthree", Moment::now());
    let since = Instant::now();
    assert_eq!(log.finish(Duration::from_millis(50)), 3);
    assert!(since.elapsed() < Duration::from_secs(5));
}
