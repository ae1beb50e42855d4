//! Where what is in a file.
//!
//! | from | |
//! |---|---|
//! | 0 | [`MAGIC`], version (4 bytes), length of the first part (4 bytes); sections |
//! | [`MEMORY_START`] | guest RAM, region behind region, in the order of their addresses |
//! | behind it | a CRC-32 of each [`BLOCK`] of it |
//! | behind it, of a [difference](super::Difference) | a bit for each page that it has; the mark at the end of its base |
//! | behind it | [`END_MAGIC`], the length of the file (8 bytes), CRC-32 of what is between (4 bytes), of this mark (4 bytes) |

use crate::config::Memory;
use crate::memory::Pages;

/// How a file begins.
pub(super) const MAGIC: [u8; 8] = *b"kvmlet\x1aS";
/// What the mark at its end begins with.
pub(super) const END_MAGIC: [u8; 8] = *b"kvmlet\x1aE";
/// A kvmlet that knows less refuses more.
pub const VERSION: u32 = 2;
/// Magic, version, length.
pub(super) const HEAD_BYTES: usize = 16;
/// Magic, length, two checksums.
pub(super) const END_BYTES: usize = 24;

/// Where memory begins: the first part is shorter. Large pages of the processor's lie alike in file and memory.
pub const MEMORY_START: u64 = 16 << 20;
/// The part of memory that has a checksum of its own.
pub(super) const BLOCK: usize = 1 << 20;

/// How many checksums memory of that size has.
pub(super) fn blocks(memory: u64) -> u64 {
    memory.div_ceil(BLOCK as u64)
}

/// The length of a file with memory of that size.
pub(super) fn file_bytes(memory: u64) -> u64 {
    MEMORY_START + memory + 4 * blocks(memory) + END_BYTES as u64
}

/// The length of the file of a difference, of memory of that size.
pub(super) fn difference_bytes(memory: u64) -> u64 {
    file_bytes(memory) + Pages::map_bytes(memory) + END_BYTES as u64
}

/// The size of the memory in a file of that length, if there are such files.
pub(super) fn memory_of(file: u64) -> Option<u64> {
    let both = file.checked_sub(MEMORY_START + END_BYTES as u64)?;
    let memory = both.checked_sub(4 * both.div_ceil(BLOCK as u64 + 4))?;
    (file_bytes(memory) == file && memory.is_multiple_of(4096)).then_some(memory)
}

/// The most that a file takes of a disk, of a VM with that much memory.
pub fn most_bytes(memory: Memory) -> u64 {
    file_bytes(memory.bytes())
}

/// The mark at the end of a file of that length.
pub(super) fn end_mark(file_bytes: u64, table: u32) -> [u8; END_BYTES] {
    let mut mark = [0; END_BYTES];
    mark[..8].copy_from_slice(&END_MAGIC);
    mark[8..16].copy_from_slice(&file_bytes.to_le_bytes());
    mark[16..20].copy_from_slice(&table.to_le_bytes());
    let checksum = crc32fast::hash(&mark[..20]);
    mark[20..].copy_from_slice(&checksum.to_le_bytes());
    mark
}
