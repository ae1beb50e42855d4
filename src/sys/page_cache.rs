//! What of a file the host has in its page cache.

use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;

const PAGE_BYTES: u64 = 4096;
/// Asked about in one call.
const WINDOW: u64 = 64 << 20;
/// Asked for in one call: no device's largest request is smaller, and more than that is left out.
const REQUEST: u64 = 512 << 10;
/// Looks at a file to tell whether it is there.
const LOOKS: u64 = 16;

/// Would who reads a file wait for its disk, more often than not? It is looked at in some places that have data.
///
/// # Errors
/// When the file cannot be looked at.
pub fn is_cold(file: &File) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    let mut places = Vec::new();
    for number in 0..LOOKS {
        match seek(file, SeekFrom::Data(bytes / LOOKS * number)) {
            Ok(place) => places.push(place),
            // There is none behind that.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        }
    }
    most_are_missing(file, &places)
}

/// The same of who reads parts of it.
///
/// # Errors
/// As [`is_cold`].
pub fn are_cold(file: &File, parts: &[Range<u64>]) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    let step = parts.len().div_ceil(LOOKS as usize).max(1);
    let middle = |part: &Range<u64>| part.start / 2 + part.end / 2;
    let places = parts.iter().step_by(step).map(middle);
    let places: Vec<u64> = places.filter(|place| *place < bytes).collect();
    most_are_missing(file, &places)
}

fn most_are_missing(file: &File, places: &[u64]) -> io::Result<bool> {
    let mut missing = 0;
    for place in places {
        // To read it without waiting would have the kernel fetch it.
        let states = states(file, place / PAGE_BYTES * PAGE_BYTES, PAGE_BYTES)?;
        missing += usize::from(states.iter().all(|state| state & 1 == 0));
    }
    Ok(missing * 2 > places.len())
}

/// The parts of a file that are there, each with what is between two that are no further apart than `gap` bytes. Of a file that this
/// user may not write to, the kernel says that all of it is.
///
/// # Errors
/// When the file cannot be mapped.
pub fn parts(file: &File, gap: u64) -> io::Result<Vec<Range<u64>>> {
    let bytes = file.metadata()?.len();
    let mut parts: Vec<Range<u64>> = Vec::new();
    for start in (0..bytes).step_by(WINDOW as usize) {
        let length = (bytes - start).min(WINDOW);
        for (number, _) in (0..)
            .zip(states(file, start, length)?)
            .filter(|it| it.1 & 1 != 0)
        {
            let place = start + number * PAGE_BYTES;
            let end = (place + PAGE_BYTES).min(bytes);
            match parts.last_mut() {
                Some(last) if place - last.end <= gap => last.end = end,
                _ => parts.push(place..end),
            }
        }
    }
    Ok(parts)
}

/// What the kernel says of each page.
fn states(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut states = vec![0u8; length.div_ceil(PAGE_BYTES) as usize];
    let length = length as usize;
    // SAFETY: a new mapping, which nothing is read through, and which is gone before this returns; there is a byte for each page.
    unsafe {
        let flags = MapFlags::SHARED;
        let at = mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ,
            flags,
            file,
            start,
        )?;
        let told = match libc::mincore(at, length, states.as_mut_ptr()) {
            0 => Ok(states),
            _ => Err(io::Error::last_os_error()),
        };
        munmap(at, length)?;
        told
    }
}

/// Has the kernel begin to read parts of a file, for which nobody waits.
///
/// # Errors
/// When it does not take such advice.
pub fn read_ahead(file: &File, parts: impl Iterator<Item = Range<u64>>) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    for part in parts {
        let end = part.end.min(bytes);
        for start in (part.start..end).step_by(REQUEST as usize) {
            let length = NonZeroU64::new((end - start).min(REQUEST));
            fadvise(file, start, length, Advice::WillNeed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fsync;
    use std::os::unix::fs::FileExt;

    /// A file of that many pages, of which nothing is there. None where it is on no disk.
    fn cold(pages: u64) -> Option<File> {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).ok()?;
        let content = vec![7; (pages * PAGE_BYTES) as usize];
        file.write_all_at(&content, 0).unwrap();
        fsync(&file).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let is_gone = parts(&file, 0).unwrap().is_empty();
        if !is_gone {
            println!("SKIPPED: this file system keeps what it has");
        }
        is_gone.then_some(file)
    }

    #[test]
    fn what_is_there_is_told_and_what_is_not_can_be_asked_for() {
        let Some(file) = cold(2048) else { return };
        assert!(is_cold(&file).unwrap());
        fadvise(&file, 0, None, Advice::Random).unwrap();
        let read = |page: u64| assert_eq!(file.read_at(&mut [0], page * PAGE_BYTES).unwrap(), 1);
        [3, 4, 9].into_iter().for_each(read);
        let pages = |range: Range<u64>| range.start * PAGE_BYTES..range.end * PAGE_BYTES;
        let has = |all: &[Range<u64>], part: &Range<u64>| {
            all.iter()
                .any(|it| it.start <= part.start && part.end <= it.end)
        };
        // A file system may fetch more than it was asked for.
        let all = parts(&file, 0).unwrap();
        assert!(
            has(&all, &pages(3..5)) && has(&all, &pages(9..10)),
            "{all:?}"
        );
        assert!(!has(&all, &pages(1000..1001)), "{all:?}");
        assert!(has(&parts(&file, 4 * PAGE_BYTES).unwrap(), &pages(3..10)));
        let cold = |parts: &[Range<u64>]| are_cold(&file, parts).unwrap();
        assert!(!cold(&[pages(3..4), pages(9..10), pages(1000..1001)]));
        assert!(cold(&[pages(3..4), pages(1000..1001), pages(1400..1401)]));
        let (start, end) = (u64::MAX, 0);
        assert!(!cold(&[]) && !cold(&[end..start, Range { start, end }]));
        // More than one request, and what is behind the end.
        read_ahead(&file, [pages(1000..1500), pages(2040..9000)].into_iter()).unwrap();
        let wanted = [
            pages(3..5),
            pages(9..10),
            pages(1000..1500),
            pages(2040..2048),
        ];
        let is_there = || {
            let all = parts(&file, 0).unwrap();
            wanted.iter().all(|part| has(&all, part))
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is_there() {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?}",
                parts(&file, 0)
            );
            std::thread::yield_now();
        }
        read_ahead(&file, std::iter::once(0..u64::MAX)).unwrap();
        while is_cold(&file).unwrap() {
            assert!(std::time::Instant::now() < deadline);
        }
    }

    #[test]
    fn who_has_no_data_is_not_cold() {
        let file = tempfile::tempfile().unwrap();
        assert!(!is_cold(&file).unwrap());
        assert_eq!(parts(&file, 0).unwrap(), []);
        file.set_len(1 << 30).unwrap();
        assert!(!is_cold(&file).unwrap());
    }
}
