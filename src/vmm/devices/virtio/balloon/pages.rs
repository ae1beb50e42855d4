//! The page numbers of a request, as few runs of neighbours.

use crate::memory::{GuestRam, PAGE_BYTES};
use std::ops::Range;
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Size of a page number: 32 bits, little-endian (virtio 1.2 §5.5.6).
pub(super) const NUMBER_BYTES: usize = 4;
/// Page numbers that are worked on at a time. Linux sends 256 in a request.
pub(super) const PORTION: usize = 1024;

/// Reads page numbers, in no order and perhaps more than once each, and leaves out those that are not RAM.
/// Returns how many those were.
pub(super) fn read(bytes: &[u8], ram: &GuestRam, pages: &mut Vec<u32>) -> u64 {
    pages.clear();
    let mut refused = 0;
    for number in bytes.as_chunks::<NUMBER_BYTES>().0 {
        let number = u32::from_le_bytes(*number);
        // Regions begin and end at whole pages.
        match ram.address_in_range(GuestAddress(u64::from(number) * PAGE_BYTES)) {
            true => pages.push(number),
            false => refused += 1,
        }
    }
    refused
}

/// Joins pages that lie side by side: a system call for each run, and not for each page. The ranges are of
/// page numbers, ascending, and none is in two.
pub(super) fn runs(pages: &mut [u32]) -> impl Iterator<Item = Range<u64>> + '_ {
    pages.sort_unstable();
    pages
        .chunk_by(|a, b| b - a <= 1)
        .filter_map(|run| Some(u64::from(*run.first()?)..u64::from(*run.last()?) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Backing;

    #[test]
    fn neighbours_are_joined_whatever_their_order() {
        let joined = |pages: &[u32]| runs(&mut pages.to_vec()).collect::<Vec<_>>();
        assert_eq!(joined(&[]), []);
        assert_eq!(joined(&[7, 7]), vec![7..8; 1]);
        assert_eq!(joined(&[5, 4, 3, 9, 4, 8, 3]), [3..6, 8..10]);
        assert_eq!(
            joined(&[u32::MAX, 0, u32::MAX - 1]),
            [0..1, u64::from(u32::MAX) - 1..1 << 32]
        );
        // What a run leaves out would stay with the guest, and what it adds would be taken from it.
        let scattered: Vec<u32> = (0..5000u32)
            .map(|n| n.wrapping_mul(2_654_435_761) >> 18)
            .collect();
        let covered: Vec<u64> = runs(&mut scattered.clone()).flatten().collect();
        let mut expected: Vec<u64> = scattered.iter().map(|page| u64::from(*page)).collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(covered, expected);
    }

    #[test]
    fn only_ram_is_read() {
        let ranges = [
            (GuestAddress(0), 16 << 12),
            (GuestAddress(1 << 32), 1 << 12),
        ];
        let ram = GuestRam::allocate(&ranges, Backing::default()).unwrap();
        let numbers = [15u32, 16, 0xf_ffff, 0x10_0000, 0x10_0001, u32::MAX, 0];
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let mut pages = vec![99];
        assert_eq!(read(&bytes, &ram, &mut pages), 4);
        assert_eq!(pages, [15, 0x10_0000, 0]);
    }
}
