//! Which pages of guest RAM have been written to while it is told to somebody.

use super::{GuestRam, PAGE_BYTES, Pages, Part};
use kvmlet_sys::thread::lock;
use kvmlet_sys::written::{Which, Written};
use std::io;
use std::ops::Range;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

impl GuestRam {
    /// Has the kernel keep count of what is written to.
    ///
    /// # Errors
    /// When it cannot.
    pub fn watch(&self, written: &Written) -> io::Result<()> {
        lock(&self.0.given).get_or_insert_with(|| Pages::none_of(self.bytes()));
        let mut all = self.pieces(0..self.bytes());
        all.try_for_each(|(_, host)| written.watch(host))
    }

    /// What was given back reads as zeros from now on, and differs from what was told. Not each kernel says so of pages that are not
    /// there any more: where a table of pages went with them, or a huge page, those from Linux 6.7 until 2026 do not.
    pub(super) fn note_given(&self, start: GuestAddress, bytes: u64) {
        let mut place = 0;
        for region in self.iter() {
            let offset = start.0.checked_sub(region.start_addr().0);
            if let Some(offset) = offset.filter(|it| *it < region.len())
                && let Some(given) = &mut *lock(&self.0.given)
            {
                let start = place + offset;
                return given.add(&(start..start + bytes));
            }
            place += region.len();
        }
    }

    /// From now on nothing of a part counts as written to, until it is.
    ///
    /// # Errors
    /// When RAM is not watched.
    pub fn forget_written(&self, written: &Written, part: Part) -> io::Result<()> {
        if let Some(given) = &mut *lock(&self.0.given) {
            given.remove(&part);
        }
        let mut all = self.pieces(part);
        all.try_for_each(|(_, host)| written.forget(host))
    }

    /// Adds what was written to since, some of it, and returns how far that was looked for.
    ///
    /// # Errors
    /// When RAM is not watched.
    pub fn take_written(
        &self,
        written: &Written,
        part: Part,
        taken: &mut impl Extend<Part>,
    ) -> io::Result<u64> {
        let Some((place, host)) = self.pieces(part.clone()).next() else {
            return Ok(part.end);
        };
        let to_place = |address: u64| address - host.start + place;
        let mut given = lock(&self.0.given);
        let end = written.take(host.clone(), self.which(), |it| {
            let it = to_place(it.start)..to_place(it.end);
            if let Some(given) = &mut *given {
                given.remove(&it);
            }
            taken.extend(std::iter::once(it));
        })?;
        let looked = place..to_place(end);
        if let Some(given) = &mut *given {
            taken.extend(given.parts_in(looked.clone()));
            given.remove(&looked);
        }
        Ok(looked.end)
    }

    /// What was only read of memory that is mapped from a file may be a page that nobody has watched: it came later.
    fn which(&self) -> Which {
        match self.gives_back() {
            true => Which::All,
            false => Which::Private,
        }
    }

    /// How many bytes were written to since, if that is not more than so many. What was given back may count twice.
    ///
    /// # Errors
    /// When RAM is not watched.
    pub fn count_written(&self, written: &Written, most_bytes: u64) -> io::Result<Option<u64>> {
        let given = lock(&self.0.given).as_ref().map_or(0, Pages::count);
        let mut bytes = given * PAGE_BYTES;
        for (_, host) in self.pieces(0..self.bytes()) {
            match written.count(host, self.which(), most_bytes)? {
                Some(more) if bytes + more <= most_bytes => bytes += more,
                _ => return Ok(None),
            }
        }
        Ok(Some(bytes))
    }

    /// What is at a place now. The guest may change it meanwhile.
    ///
    /// # Errors
    /// When there is no RAM.
    pub fn read_part(&self, place: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (region, offset) = self.at(place)?;
        let read = region.read_slice(bytes, offset);
        read.map_err(io::Error::other)
    }

    /// Has something else there.
    ///
    /// # Errors
    /// When there is no RAM.
    pub(super) fn write_part(&self, place: u64, bytes: &[u8]) -> io::Result<()> {
        let (region, offset) = self.at(place)?;
        let written = region.write_slice(bytes, offset);
        written.map_err(io::Error::other)
    }

    /// The region of a place, and where in that it is.
    fn at(&self, place: u64) -> io::Result<(&GuestRegionMmap<()>, MemoryRegionAddress)> {
        let mut start = 0;
        for region in self.iter() {
            let offset = place.checked_sub(start).filter(|it| *it < region.len());
            if let Some(offset) = offset {
                return Ok((region, MemoryRegionAddress(offset)));
            }
            start += region.len();
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The size of what is behind a place in its region, in bytes.
    pub fn rest_of_region(&self, place: u64) -> u64 {
        let mut pieces = self.pieces(place..self.bytes());
        pieces.next().map_or(0, |(_, host)| host.end - host.start)
    }

    /// A part, region by region: its place, and the host's addresses.
    fn pieces(&self, part: Part) -> impl Iterator<Item = (u64, Range<u64>)> {
        let mut place = 0;
        let regions = self.iter().map(move |region| {
            let start = place;
            place += region.len();
            (start..place, region.as_ptr() as u64)
        });
        regions.filter_map(move |(region, host)| {
            let (start, end) = (region.start.max(part.start), region.end.min(part.end));
            let address = |place: u64| host + (place - region.start);
            (start < end).then(|| (start, address(start)..address(end)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Backing;

    const HIGH: u64 = 1 << 32;
    const SMALL: u64 = 8 << 20;

    /// Also by a kernel that forgets what was in a table of pages when it frees that.
    #[test]
    fn what_was_given_back_has_changed() {
        let Ok(written) = Written::new() else {
            return println!("SKIPPED: a kernel before Linux 6.7");
        };
        let ranges = [
            (GuestAddress(0), SMALL as usize),
            (GuestAddress(HIGH), SMALL as usize),
        ];
        let ram = GuestRam::allocate(&ranges, Backing::default()).unwrap();
        let whole = 0..ram.bytes();
        for place in (0..ram.bytes()).step_by(PAGE_BYTES as usize) {
            ram.write_part(place, &[7]).unwrap();
        }
        let take = || {
            let (mut parts, mut looked) = (Vec::new(), 0);
            while looked < whole.end {
                let part = looked..whole.end;
                looked = ram.take_written(&written, part, &mut parts).unwrap();
            }
            parts.sort_by_key(|it: &Part| it.start);
            parts
        };
        ram.watch(&written).unwrap();
        ram.forget_written(&written, whole.clone()).unwrap();
        assert_eq!(take(), []);
        let give = |start, bytes| ram.give_back(GuestAddress(start), bytes).unwrap();
        let pages = |start, count| {
            let start = start + PAGE_BYTES;
            start..start + count * PAGE_BYTES
        };
        give(PAGE_BYTES, 2 * PAGE_BYTES);
        give(HIGH + PAGE_BYTES, PAGE_BYTES);
        assert_eq!(take(), [pages(0, 2), pages(SMALL, 1)]);
        assert_eq!(take(), []);
        give(PAGE_BYTES, 2 * PAGE_BYTES);
        give(HIGH + PAGE_BYTES, PAGE_BYTES);
        // As if it had been said nothing of these.
        for (_, host) in ram.pieces(whole.clone()) {
            written.forget(host).unwrap();
        }
        let count = |most| ram.count_written(&written, most).unwrap();
        assert_eq!(
            (count(3 * PAGE_BYTES), count(2 * PAGE_BYTES)),
            (Some(3 * PAGE_BYTES), None)
        );
        assert_eq!(take(), [pages(0, 2), pages(SMALL, 1)]);
        assert_eq!((take(), count(0)), (vec![], Some(0)));
        // What is told as a whole is told as it is by then.
        give(0, SMALL);
        ram.forget_written(&written, whole.clone()).unwrap();
        assert_eq!(take(), []);
    }
}
