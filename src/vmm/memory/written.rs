//! Which pages of guest RAM have been written to while it is told to somebody.

use super::GuestRam;
use kvmlet_sys::written::Written;
use std::io;
use std::ops::Range;
use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// A part of guest RAM, by its place where regions lie behind each other.
pub type Part = Range<u64>;

impl GuestRam {
    /// Has the kernel keep count of what is written to.
    ///
    /// # Errors
    /// When it cannot.
    pub fn watch(&self, written: &Written) -> io::Result<()> {
        let mut all = self.pieces(0..self.bytes());
        all.try_for_each(|(_, host)| written.watch(host))
    }

    /// From now on nothing of a part counts as written to, until it is.
    ///
    /// # Errors
    /// When RAM is not watched.
    pub fn forget_written(&self, written: &Written, part: Part) -> io::Result<()> {
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
        let end = written.take(host.clone(), |it| {
            taken.extend(std::iter::once(to_place(it.start)..to_place(it.end)));
        })?;
        Ok(to_place(end))
    }

    /// How many bytes were written to since, if that is not more than so many.
    ///
    /// # Errors
    /// When RAM is not watched.
    pub fn count_written(&self, written: &Written, most_bytes: u64) -> io::Result<Option<u64>> {
        let mut bytes = 0;
        for (_, host) in self.pieces(0..self.bytes()) {
            match written.count(host, most_bytes)? {
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
        let mut start = 0;
        for region in self.iter() {
            let offset = place.checked_sub(start).filter(|it| *it < region.len());
            if let Some(offset) = offset {
                let read = region.read_slice(bytes, MemoryRegionAddress(offset));
                return read.map_err(io::Error::other);
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
