//! Guest RAM: which host pages stand behind which guest physical addresses.

mod copied;
mod pager;
mod pages;
mod place;
mod placement;
mod resident;
mod written;

pub use pager::{Pager, PagerError};
pub use pages::{Pages, Part};
pub use resident::{PAGE_BYTES, populate};

use crate::config::HugePages;
use place::Place;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionCollectionError,
    GuestRegionMmap, MmapRegion, VolatileSlice,
};

/// The memory map type that devices and loaders see.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// The name under which guest RAM shows in `/proc/PID/smaps` (`[anon:guest-ram]`), so that what a VM
/// costs can be told from what its guest was promised.
pub const VMA_NAME: &std::ffi::CStr = c"guest-ram";

/// Read at once of what is laid over it.
const LAID_BYTES: usize = 64 << 10;

/// Why guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host refused the mapping.
    #[error("the host cannot map {bytes} bytes of guest memory{}", match .pages {
        HugePages::Reserved => " from its reserved huge pages",
        _ => "",
    })]
    Map {
        /// Size of the region that failed.
        bytes: usize,
        /// The pages that were asked for.
        pages: HugePages,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host cannot give the pages now.
    #[error("the host cannot set aside {bytes} bytes of guest memory before the start (prefault)")]
    Prefault {
        /// Size of the region that failed.
        bytes: usize,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What is in a file cannot be read.
    #[error("cannot copy guest memory from the file")]
    Copy(#[source] io::Error),
    /// The program that has it cannot give it.
    #[error(transparent)]
    Pager(#[from] PagerError),
    /// Regions overlap or run past the address space: a bug in the address map.
    #[error("guest memory regions do not fit together")]
    Layout(#[source] io::Error),
}

/// How the host backs guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// Page size.
    pub pages: HugePages,
    /// Touch every page now, so that the guest never waits for the host to find one.
    pub prefault: bool,
}

/// The RAM of one guest, mapped into this process until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct GuestRam(Arc<Ram>);

#[derive(Debug)]
struct Ram {
    memory: GuestMemory,
    /// Where its regions are, for the way of data.
    places: Vec<Place>,
    /// What was given back to the host and nobody was told of, once it is watched what is written to.
    given: Mutex<Option<Pages>>,
}

impl GuestRam {
    /// Maps one private anonymous region for each range of guest physical addresses.
    ///
    /// # Errors
    /// When the host has not the address space, the huge pages or (with `prefault`) the memory.
    pub fn allocate(ranges: &[(GuestAddress, usize)], backing: Backing) -> Result<Self, Error> {
        let regions = ranges
            .iter()
            .map(|&(start, bytes)| {
                let mapping = map(start, bytes, backing)?;
                GuestRegionMmap::new(mapping, start)
                    .ok_or_else(|| layout(GuestRegionCollectionError::MemoryRegionOverlap))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let memory = GuestMemory::from_regions(regions).map_err(layout)?;
        Ok(Self::of(memory))
    }

    fn of(memory: GuestMemory) -> Self {
        let places = memory.iter().map(Place::of).collect();
        let given = Mutex::default();
        Self(Arc::new(Ram {
            memory,
            places,
            given,
        }))
    }

    /// Those bytes of guest memory, if all of them are RAM, in one region. The guest may change them at any time.
    pub fn slice(&self, start: GuestAddress, bytes: usize) -> Option<VolatileSlice<'_>> {
        let mut places = self.0.places.iter();
        let first = places.find_map(|place| place.find(start, bytes))?;
        // SAFETY: the bytes are part of a region, which stays mapped as long as this value lives; whoever gets them
        // knows that they are volatile.
        Some(unsafe { VolatileSlice::new(first.as_ptr(), bytes) })
    }

    /// Maps guest RAM from a file, where its regions lie behind each other from `start` on: what is written stays in this
    /// process, and what is only read is shared with all who have the file mapped.
    ///
    /// # Errors
    /// When the file cannot be mapped, or does not have as much.
    pub fn of_file(
        ranges: &[(GuestAddress, usize)],
        file: &File,
        start: u64,
    ) -> Result<Self, Error> {
        let mut place = start;
        let mut regions = Vec::new();
        for (start, bytes) in ranges {
            let mapping = map_file(file, place, *bytes)?;
            let region = GuestRegionMmap::new(mapping, *start);
            let overlap = || layout(GuestRegionCollectionError::MemoryRegionOverlap);
            regions.push(region.ok_or_else(overlap)?);
            place += *bytes as u64;
        }
        let memory = GuestMemory::from_regions(regions).map_err(layout)?;
        Ok(Self::of(memory))
    }

    /// Has something else in it from here on, of which a file has the pages where they lie in RAM, from `start` on. They are read now:
    /// from then on nothing is shared with the file.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no such RAM.
    pub fn lay_over(&self, pages: &Pages, file: &File, start: u64) -> io::Result<()> {
        let mut bytes = vec![0; LAID_BYTES];
        for mut part in pages.parts() {
            while !part.is_empty() {
                let rest = self.rest_of_region(part.start).min(part.end - part.start);
                let bytes = &mut bytes[..LAID_BYTES.min(rest as usize)];
                file.read_exact_at(bytes, start + part.start)?;
                self.write_part(part.start, bytes)?;
                part.start += (bytes.len() as u64).max(1);
            }
        }
        Ok(())
    }

    /// Whether the host can have pages back, which read as zeros then: a file's would read as they were in the file.
    pub fn gives_back(&self) -> bool {
        (self.0.memory.iter()).all(|region| region.file_offset().is_none())
    }

    /// Size of all regions together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.iter().map(GuestMemoryRegion::len).sum()
    }
}

impl Deref for GuestRam {
    type Target = GuestMemory;

    fn deref(&self) -> &GuestMemory {
        &self.0.memory
    }
}

fn layout(error: GuestRegionCollectionError) -> Error {
    Error::Layout(io::Error::other(error))
}

fn map(guest_start: GuestAddress, bytes: usize, backing: Backing) -> Result<MmapRegion, Error> {
    let flags = libc::MAP_PRIVATE
        | libc::MAP_ANONYMOUS
        | match backing.pages {
            // The pool's pages are promised here and now; otherwise a guest would die of touching one.
            HugePages::Reserved => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            HugePages::Off | HugePages::Transparent => libc::MAP_NORESERVE,
        };
    let build = || MmapRegion::build(None, bytes, libc::PROT_READ | libc::PROT_WRITE, flags);
    let region = match backing.pages {
        HugePages::Transparent => placement::aligned(bytes, guest_start, build),
        HugePages::Off | HugePages::Reserved => build(),
    }
    .map_err(|error| Error::Map {
        bytes,
        pages: backing.pages,
        source: match error {
            vm_memory::mmap::MmapRegionError::Mmap(source) => source,
            other => io::Error::other(other),
        },
    })?;
    // Naming is for observers only; a kernel without CONFIG_ANON_VMA_NAME refuses, which costs nothing.
    // SAFETY: the range is the mapping just made, and PR_SET_VMA only reads the NUL-terminated name.
    unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            region.as_ptr(),
            bytes,
            VMA_NAME.as_ptr(),
        );
    }
    // A VMM that crashes writes its own memory to a core file, and none of its guest's. Every kernel with KVM takes it.
    let _ = advise(&region, libc::MADV_DONTDUMP);
    if backing.pages == HugePages::Transparent {
        // A kernel without THP says EINVAL: then small pages serve, which is what "transparent" means.
        let _ = advise(&region, libc::MADV_HUGEPAGE);
    }
    if backing.prefault {
        advise(&region, libc::MADV_POPULATE_WRITE)
            .map_err(|source| Error::Prefault { bytes, source })?;
    }
    Ok(region)
}

fn map_file(file: &File, start: u64, bytes: usize) -> Result<MmapRegion, Error> {
    let failed = |source| Error::Map {
        bytes,
        pages: HugePages::Off,
        source,
    };
    let file = file.try_clone().map_err(failed)?;
    let place = FileOffset::new(file, start);
    let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let region = MmapRegion::build(Some(place), bytes, protection, flags);
    let region = region.map_err(|error| failed(io::Error::other(error)))?;
    let _ = advise(&region, libc::MADV_DONTDUMP);
    Ok(region)
}

fn advise(region: &MmapRegion, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the range is a mapping of ours, and the advices used here leave its contents alone.
    match unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn regions_hold_what_is_written() {
        let ranges = [(GuestAddress(0), 1 << 20), (GuestAddress(1 << 32), 1 << 20)];
        let ram = GuestRam::allocate(&ranges, Backing::default()).unwrap();
        assert_eq!(ram.bytes(), 2 << 20);
        ram.write_obj(7u64, GuestAddress((1 << 32) + 8)).unwrap();
        assert_eq!(ram.read_obj::<u64>(GuestAddress((1 << 32) + 8)).unwrap(), 7);
        assert!(ram.write_obj(7u64, GuestAddress(1 << 20)).is_err());
        let found = |start, bytes| ram.slice(GuestAddress(start), bytes);
        let mut bytes = [0u8; 9];
        found((1 << 32) + 7, 9).unwrap().copy_to(&mut bytes);
        assert_eq!(bytes, [0, 7, 0, 0, 0, 0, 0, 0, 0]);
        for (start, bytes, is_ram) in [
            (0, 1 << 20, true),
            (0, (1 << 20) + 1, false),
            ((1 << 20) - 1, 1, true),
            ((1 << 20) - 1, 2, false),
            (1 << 20, 1, false),
            ((1 << 32) - 1, 2, false),
            ((1 << 32) + 1, 1 << 20, false),
            (u64::MAX, usize::MAX, false),
        ] {
            assert_eq!(
                found(start, bytes).is_some(),
                is_ram,
                "{bytes} at {start:#x}"
            );
        }
    }

    #[test]
    fn prefault_touches_every_page() {
        let backing = Backing {
            pages: HugePages::Off,
            prefault: true,
        };
        let ram = GuestRam::allocate(&[(GuestAddress(0), 4 << 20)], backing).unwrap();
        let start = ram.get_host_address(GuestAddress(0)).unwrap();
        let mut resident = vec![0u8; 1024];
        // SAFETY: the range is mapped and the vector has a byte for each of its 1024 pages.
        let result = unsafe { libc::mincore(start.cast(), 4 << 20, resident.as_mut_ptr()) };
        assert_eq!(result, 0);
        assert!(resident.iter().all(|page| page & 1 == 1));
    }

    /// What the kernel says of the mapping around this address (`VmFlags` in proc(5)).
    fn flags_of(address: u64) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let number = |text: &str| u64::from_str_radix(text, 16).ok();
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            if let Some((Some(start), Some(end))) = range.map(|(s, e)| (number(s), number(e))) {
                inside = (start..end).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return format!("{flags} ");
            }
        }
        panic!("{address:#x} is not mapped");
    }

    #[test]
    fn guest_memory_is_not_dumped() {
        let ram = GuestRam::allocate(&[(GuestAddress(0), 4 << 20)], Backing::default()).unwrap();
        let flags = flags_of(ram.get_host_address(GuestAddress(0)).unwrap() as u64);
        assert!(flags.contains(" dd "), "{flags}");
    }

    /// Leaves `count` holes of `bytes` in the address space, as threads that ended do.
    fn holes(count: usize, bytes: usize) {
        let all = MmapRegion::<()>::new(count * (bytes + 4096)).unwrap();
        for hole in 0..count {
            let start = all.as_ptr().wrapping_add(hole * (bytes + 4096));
            // SAFETY: part of the mapping above, which nobody uses, and which is never unmapped as a whole.
            assert_eq!(unsafe { libc::munmap(start.cast(), bytes) }, 0);
        }
        std::mem::forget(all);
    }

    #[test]
    fn large_pages_start_where_the_guests_do() {
        // Other threads map, too: a place that was made may be theirs before it is taken.
        let test = "memory::tests::large_pages_start_where_the_guests_do";
        crate::alone::alone(test, || {
            let backing = Backing {
                pages: HugePages::Transparent,
                prefault: true,
            };
            holes(10, 9 << 20);
            // Sizes that no kernel aligns by itself, after mappings that leave the next one anywhere.
            let mut others = Vec::new();
            for odd in 1..=8usize {
                others.push(MmapRegion::<()>::new(odd * 4096).unwrap());
                let bytes = (8 << 20) + odd * 4096;
                for start in [0, 1 << 32, (1 << 32) + 0x3000] {
                    let ranges = [(GuestAddress(start), bytes)];
                    let ram = GuestRam::allocate(&ranges, backing).unwrap();
                    let host = ram.get_host_address(GuestAddress(start)).unwrap();
                    assert_eq!(host as u64 % (2 << 20), start % (2 << 20), "{odd} {host:?}");
                }
            }
        });
    }

    #[test]
    fn overlapping_regions_are_refused() {
        let ranges = [(GuestAddress(0), 1 << 20), (GuestAddress(4096), 1 << 20)];
        assert!(GuestRam::allocate(&ranges, Backing::default()).is_err());
    }
}
