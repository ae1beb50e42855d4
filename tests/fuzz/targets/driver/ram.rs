//! Guest RAM as a machine with more than 3 GiB has it: one region below 4 GiB and one above, neither of them next to
//! the other in the guest nor here. Around each is a moat that nobody can read or write: a worker that leaves RAM dies
//! of it, and what it has the kernel do beyond is refused (EFAULT), which the [logger](super::ear) hears of.

use kvmlet_spec::HugePages;
use kvmlet_vmm::memory::{Backing, GuestRam};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// First address and size of each region, in bytes. Large pages are asked for, so both begin as far from a multiple of
/// 2 MiB here as in the guest, and so cannot be neighbours.
pub const REGIONS: [(u64, usize); 2] = [(0, 1 << 18), ((4 << 30) + 0x18_0000, 1 << 17)];
/// Zones of a region, from its start: nothing, then rings, then indirect tables, then buffers. A buffer that begins
/// in the last one cannot reach the others, however long it is.
const RINGS: u64 = 0x1000;
const TABLES: u64 = 0x6000;
pub const BUFFERS: u64 = 0xc000;
/// Bytes of an indirect table: eight descriptors.
const TABLE_BYTES: u64 = 128;
/// Bytes of the rings of one queue.
const RING_BYTES: u64 = 0x1000;
const MOAT_BYTES: usize = 1 << 16;

/// The RAM of all inputs.
pub fn ram() -> &'static GuestRam {
    static RAM: LazyLock<GuestRam> = LazyLock::new(|| {
        // What is in the way once is so again, unless it stays where it is.
        let mut attempts = (0..8).map(|_| {
            let ranges = REGIONS.map(|(start, bytes)| (GuestAddress(start), bytes));
            let pages = HugePages::Transparent;
            let backing = Backing {
                pages,
                prefault: false,
            };
            GuestRam::allocate(&ranges, backing).expect("RAM")
        });
        let mut unusable = Vec::new();
        attempts
            .find_map(|ram| match dig_moats(&ram) {
                true => Some(ram),
                false => {
                    unusable.push(ram);
                    None
                }
            })
            .expect("room for moats")
    });
    &RAM
}

fn dig_moats(ram: &GuestRam) -> bool {
    REGIONS.iter().all(|(start, bytes)| {
        let host = ram.get_host_address(GuestAddress(*start)).expect("RAM");
        let (before, behind) = (host.wrapping_sub(MOAT_BYTES), host.wrapping_add(*bytes));
        [before, behind].into_iter().all(|moat| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: what is mapped there already stays.
            let made =
                unsafe { libc::mmap(moat.cast(), MOAT_BYTES, libc::PROT_NONE, flags, -1, 0) };
            made == moat.cast()
        })
    })
}

/// As it is at the start of an input: empty, so that the input does the same again.
pub fn empty() -> &'static GuestRam {
    static ZEROES: [u8; REGIONS[0].1] = [0; REGIONS[0].1];
    let ram = ram();
    for (start, bytes) in REGIONS {
        ram.write_slice(&ZEROES[..bytes], GuestAddress(start))
            .expect("RAM");
    }
    ram
}

/// Everything that is in RAM.
pub fn contents(into: &mut Vec<u8>) {
    if into.is_empty() {
        into.resize(REGIONS.iter().map(|(_, bytes)| bytes).sum(), 0);
    }
    let (low, high) = into.split_at_mut(REGIONS[0].1);
    for (part, (start, _)) in [low, high].into_iter().zip(REGIONS) {
        ram().read_slice(part, GuestAddress(start)).expect("RAM");
    }
}

/// Where an address is in [contents], if it is RAM.
pub fn index_of(address: u64) -> Option<usize> {
    let mut before = 0;
    for (start, bytes) in REGIONS {
        if (start..start + bytes as u64).contains(&address) {
            return Some(before + (address - start) as usize);
        }
        before += bytes;
    }
    None
}

/// Where the rings of a queue are: those of neighbours are in different regions.
pub fn rings_of(queue: u32) -> u64 {
    REGIONS[queue as usize % 2].0 + RINGS + u64::from(queue / 2) * RING_BYTES
}

/// The indirect table that a queue uses for the chain that begins at this descriptor.
pub fn table_of(queue: u32, head: u16) -> u64 {
    let number = u64::from(queue) * 16 + u64::from(head);
    REGIONS[0].0 + TABLES + number * TABLE_BYTES % (BUFFERS - TABLES)
}

/// A place for a buffer, as the fuzzer likes it: in either region, and close to its end as well.
pub fn place(value: u16) -> u64 {
    let (start, bytes) = REGIONS[usize::from(value >> 15)];
    let room = bytes as u64 - BUFFERS;
    let offset = match value & 0x4000 {
        0 => u64::from(value & 0x3fff) * 0x40 % room,
        _ => room - 1 - u64::from(value & 0x3fff) % 0x1000,
    };
    start + BUFFERS + offset
}

/// That place, or the last one before it from which as much is in the same region.
pub fn fitting(place: u64, bytes: u64) -> u64 {
    let (start, size) = REGIONS[usize::from(place >= REGIONS[1].0)];
    place.min(start + size as u64 - bytes)
}

/// Is any of this where rings and tables are?
pub fn is_of_rings(address: u64, bytes: u64) -> bool {
    let end = address.saturating_add(bytes);
    REGIONS
        .iter()
        .any(|(start, _)| address < start + BUFFERS && end > *start)
}

pub fn put(address: u64, bytes: &[u8]) {
    // What leaves RAM is tried as well, and does nothing.
    let _ = ram().write_slice(bytes, GuestAddress(address));
}

/// Reads as a driver does what the device writes meanwhile.
pub fn half_word(address: u64) -> u16 {
    ram()
        .load(GuestAddress(address), Ordering::SeqCst)
        .expect("RAM")
}

pub fn word(address: u64) -> u32 {
    ram()
        .load(GuestAddress(address), Ordering::SeqCst)
        .expect("RAM")
}

pub fn set_half_word(address: u64, value: u16) {
    ram()
        .store(value, GuestAddress(address), Ordering::SeqCst)
        .expect("RAM");
}
