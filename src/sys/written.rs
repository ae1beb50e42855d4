//! Which pages of this process's memory have been written to, by whomever: its threads, KVM's guests, system calls.
//!
//! Pages are write-protected, and the kernel takes the protection of a page away when it is written to, and nobody is asked
//! (`UFFD_FEATURE_WP_ASYNC`, `PAGEMAP_SCAN`; both Linux 6.7). It takes no right. What the kernel had pinned before, to have a
//! device write to it, it does not notice.

use crate::faults::{agree, by_call, register};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

/// Which pages count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that were written to.
    All,
    /// Of memory that is mapped from a file for this process alone: those that are not the file's any more, whether they
    /// were written to before they were watched, or since. Where nothing was forgotten yet, these are all that differ from the file.
    Private,
}

/// Ranges that are told in one call.
const RANGES: usize = 64;

/// The means to find out, for the process that has made it.
#[derive(Debug)]
pub struct Written {
    /// What protects.
    faults: OwnedFd,
    /// What tells.
    pages: File,
}

/// linux/fs.h: `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    ranges: u64,
    most_ranges: u64,
    most_pages: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

/// The same: `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PM_SCAN_WP_MATCHING: u64 = 1 << 0;
const PM_SCAN_CHECK_WPASYNC: u64 = 1 << 1;

/// The calls that are made of it, for lists of system calls.
pub const PAGEMAP_SCAN: u32 = 0xc060_6610;
/// The other one.
pub use crate::faults::UFFDIO_REGISTER;

impl Written {
    /// For the memory that this process has and will have.
    ///
    /// # Errors
    /// When the kernel does not know how.
    pub fn new() -> io::Result<Self> {
        let flags = libc::O_CLOEXEC | UFFD_USER_MODE_ONLY;
        let faults = by_call(flags)?;
        agree(&faults, UFFD_FEATURE_WP_ASYNC)?;
        let pages = without_addresses(|| File::open("/proc/self/pagemap"))?;
        Ok(Self { faults, pages })
    }

    /// Has the kernel keep count of a range from now on, for good: all of it counts as written to.
    ///
    /// # Errors
    /// When the kernel cannot, of such memory.
    pub fn watch(&self, range: Range<u64>) -> io::Result<()> {
        register(&self.faults, range, UFFDIO_REGISTER_MODE_WP)
    }

    /// From now on nothing in a watched range counts as written to, until it is.
    ///
    /// # Errors
    /// When the range is not watched.
    pub fn forget(&self, range: Range<u64>) -> io::Result<()> {
        let mut scan = Scan {
            flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
            ..Scan::of(range)
        };
        self.scan(&mut scan).map(drop)
    }

    /// What was written to of a watched range, which [is forgotten](Self::forget) in the same moment, some of it: returns
    /// where to go on.
    ///
    /// # Errors
    /// When the range is not watched.
    pub fn take(
        &self,
        range: Range<u64>,
        which: Which,
        taken: impl FnMut(Range<u64>),
    ) -> io::Result<u64> {
        self.tell(range, which, PM_SCAN_WP_MATCHING, 0, taken)
    }

    /// How many bytes were written to, if that is not more than so many.
    ///
    /// # Errors
    /// When the range is not watched.
    pub fn count(
        &self,
        mut range: Range<u64>,
        which: Which,
        most_bytes: u64,
    ) -> io::Result<Option<u64>> {
        let mut bytes = 0;
        while range.start < range.end {
            let add = |written: Range<u64>| bytes += written.end - written.start;
            let most = most_bytes / 4096 + 1;
            range.start = self.tell(range.clone(), which, 0, most, add)?;
            if bytes > most_bytes {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    fn tell(
        &self,
        range: Range<u64>,
        which: Which,
        flags: u64,
        most_pages: u64,
        taken: impl FnMut(Range<u64>),
    ) -> io::Result<u64> {
        let mut ranges = [PageRegion::default(); RANGES];
        // A page that was never there is neither present nor swapped, and counts as written to.
        let (inverted, any_of) = match which {
            Which::All => (0, 0),
            Which::Private => (PAGE_IS_FILE, PAGE_IS_PRESENT | PAGE_IS_SWAPPED),
        };
        let mut scan = Scan {
            flags: flags | PM_SCAN_CHECK_WPASYNC,
            ranges: ranges.as_mut_ptr() as u64,
            most_ranges: RANGES as u64,
            most_pages,
            inverted,
            mask: PAGE_IS_WRITTEN | inverted,
            any_of,
            returned: PAGE_IS_WRITTEN,
            ..Scan::of(range)
        };
        let count = self.scan(&mut scan)?;
        let ranges = ranges.iter().take(count);
        ranges.map(|it| it.start..it.end).for_each(taken);
        Ok(scan.walk_end)
    }

    fn scan(&self, scan: &mut Scan) -> io::Result<usize> {
        let fd = self.pages.as_raw_fd();
        // SAFETY: the kernel reads and writes a structure of that size, and as many ranges as it says that there are, which the
        // caller has. What memory has in it stays as it is.
        let count = check(unsafe { libc::ioctl(fd, PAGEMAP_SCAN as _, scan) })?;
        Ok(count as usize)
    }
}

impl Scan {
    fn of(range: Range<u64>) -> Self {
        Self {
            size: size_of::<Self>() as u64,
            start: range.start,
            end: range.end,
            ..Self::default()
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens something without the right by which a reader of it would be told where in the host's memory pages are: whoever
/// takes this process over is to find nothing that it can be told by.
fn without_addresses<T>(open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let had = capabilities(None)?;
    if !had.effective.contains(CapabilitySet::SYS_ADMIN) {
        return open();
    }
    let mut less = had;
    less.effective.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, less)?;
    let opened = open();
    set_capabilities(None, had)?;
    opened
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
    use std::os::unix::fs::FileExt;

    const PAGES: u64 = 64;

    #[test]
    fn what_is_written_to_is_told_once() {
        let written = match Written::new() {
            Ok(written) => written,
            Err(error) => return println!("SKIPPED: a kernel before Linux 6.7: {error}"),
        };
        let bytes = PAGES as usize * 4096;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping.
        let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) };
        let start = memory.unwrap() as u64;
        let write = |page: u64| {
            // SAFETY: part of the mapping.
            unsafe { ((start + page * 4096) as *mut u8).write_volatile(1) }
        };
        let range = start..start + PAGES * 4096;
        write(3);
        assert!(written.forget(range.clone()).is_err());
        written.watch(range.clone()).unwrap();
        written.forget(range.clone()).unwrap();
        let count = |most| written.count(range.clone(), Which::All, most).unwrap();
        assert_eq!(count(PAGES * 4096), Some(0));
        // One that was there, some that were not.
        [3, 9, 10, 63].into_iter().for_each(write);
        assert_eq!((count(4 * 4096), count(3 * 4096)), (Some(4 * 4096), None));
        let take = || {
            let mut taken = Vec::new();
            let mut rest = range.clone();
            while rest.start < rest.end {
                let add = |it: Range<u64>| {
                    taken.push(((it.start - start) / 4096, (it.end - start) / 4096));
                };
                rest.start = written.take(rest.clone(), Which::All, add).unwrap();
            }
            taken
        };
        assert_eq!(take(), [(3, 4), (9, 11), (63, 64)]);
        assert_eq!(take(), []);
        // More than one call tells.
        (0..PAGES).step_by(2).for_each(write);
        assert_eq!(take().len(), 32);
        // Nobody learns from it where pages are.
        let mut entry = [0; 8];
        let place = start / 4096 * 8 + 3 * 8;
        written.pages.read_exact_at(&mut entry, place).unwrap();
        assert_eq!(u64::from_le_bytes(entry) & ((1 << 55) - 1), 0);
        // SAFETY: nobody uses it any more.
        unsafe { munmap(start as *mut _, bytes) }.unwrap();
    }
    /// Memory that is mapped from a file, of which a page is told once that is not the file's: before it is watched, and since.
    #[test]
    fn pages_that_are_not_the_files_are_told() {
        let Ok(written) = Written::new() else {
            return println!("SKIPPED: a kernel before Linux 6.7");
        };
        let file = tempfile::tempfile().unwrap();
        let bytes = PAGES as usize * 4096;
        file.set_len(bytes as u64).unwrap();
        file.write_all_at(&[7; 16 * 4096], 0).unwrap();
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping.
        let memory = unsafe { mmap(std::ptr::null_mut(), bytes, access, flags, &file, 0) };
        let start = memory.unwrap() as u64;
        let at = |page: u64| (start + page * 4096) as *mut u8;
        // SAFETY: part of the mapping.
        let write = |page: u64| unsafe { at(page).write_volatile(1) };
        // SAFETY: part of the mapping.
        let read = |page: u64| unsafe { at(page).read_volatile() };
        let range = start..start + PAGES * 4096;
        let take = || {
            let mut taken = Vec::new();
            let mut rest = range.clone();
            while rest.start < rest.end {
                let add = |it: Range<u64>| {
                    taken.push(((it.start - start) / 4096, (it.end - start) / 4096));
                };
                rest.start = written.take(rest.clone(), Which::Private, add).unwrap();
            }
            taken
        };
        [1, 40].into_iter().for_each(write);
        assert_eq!((read(0), read(50)), (7, 0));
        written.watch(range.clone()).unwrap();
        assert_eq!(take(), [(1, 2), (40, 41)]);
        // One of those, one that was read, and one that was not there; others are read now.
        assert_eq!((read(2), read(60), read(1)), (7, 0, 1));
        [1, 0, 20].into_iter().for_each(write);
        let count = |most| written.count(range.clone(), Which::Private, most);
        assert_eq!(count(PAGES * 4096).unwrap(), Some(3 * 4096));
        assert_eq!(take(), [(0, 2), (20, 21)]);
        assert_eq!(take(), []);
        // Nor does it tell of the file when all is forgotten.
        written.forget(range.clone()).unwrap();
        assert_eq!((read(3), read(61)), (7, 0));
        assert_eq!(take(), []);
        write(61);
        assert_eq!(take(), [(61, 62)]);
        // SAFETY: nobody uses it any more.
        unsafe { munmap(start as *mut _, bytes) }.unwrap();
    }
}
