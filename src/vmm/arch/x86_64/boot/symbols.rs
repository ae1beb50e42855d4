//! What a `vmlinux` tells of itself by its symbol table (System V gABI chapter 4, "Symbol Table").

use super::Image;
use super::elf::is_elf;
use std::io::SeekFrom;

/// `unsigned int nr_cpu_ids` starts as NR_CPUS, the most CPUs that the kernel was built for (Linux kernel/smp.c).
const CPUS: &[u8] = b"nr_cpu_ids\0";
/// More than this of one table is not a kernel's.
const TABLE_BYTES: u64 = 64 << 20;
const SYMBOL_TABLE: u32 = 2;
const SYMBOL_BYTES: usize = 24;
const SECTION_BYTES: u64 = 64;

/// How many CPUs the kernel can use, if it is an ELF image that tells. Whatever is odd about its tables, it does not:
/// nothing depends on them but this.
pub fn cpu_limit<I: Image>(image: &mut I) -> Option<u32> {
    let bytes = image.seek(SeekFrom::End(0)).ok()?;
    let header = read(image, 0..64, bytes)?;
    if !is_elf(&header) {
        return None;
    }
    let address = find(image, &header, bytes)?;
    let place = place_of(image, &header, address, bytes)?;
    let value = read(image, place..place.checked_add(4)?, bytes)?;
    u32_at(&value, 0).filter(|limit| *limit > 0)
}

/// The address of [`CPUS`].
fn find<I: Image>(image: &mut I, header: &[u8], bytes: u64) -> Option<u64> {
    let (start, count) = (u64_at(header, 0x28)?, u16_at(header, 0x3c)?);
    let end = start.checked_add(u64::from(count) * SECTION_BYTES)?;
    let sections = read(image, start..end, bytes)?;
    let sections: Vec<&[u8]> = sections.chunks_exact(SECTION_BYTES as usize).collect();
    let table = sections
        .iter()
        .find(|section| u32_at(section, 4) == Some(SYMBOL_TABLE))?;
    let names = sections.get(u32_at(table, 0x28)? as usize)?;
    let mut content = |section: &[u8]| {
        let (start, size) = (u64_at(section, 0x18)?, u64_at(section, 0x20)?);
        read(image, start..start.checked_add(size)?, bytes)
    };
    let (symbols, names) = (content(table)?, content(names)?);
    let symbol = symbols.chunks_exact(SYMBOL_BYTES).find(|symbol| {
        let name = u32_at(symbol, 0).and_then(|at| names.get(at as usize..));
        name.is_some_and(|name| name.starts_with(CPUS))
    })?;
    u64_at(symbol, 8)
}

/// Where in the file the segment is that has this address.
fn place_of<I: Image>(image: &mut I, header: &[u8], address: u64, bytes: u64) -> Option<u64> {
    const SEGMENT_BYTES: u64 = 56;
    let (start, count) = (u64_at(header, 0x20)?, u16_at(header, 0x38)?);
    let end = start.checked_add(u64::from(count) * SEGMENT_BYTES)?;
    let segments = read(image, start..end, bytes)?;
    segments.chunks_exact(SEGMENT_BYTES as usize).find_map(|s| {
        let (offset, first, size) = (u64_at(s, 8)?, u64_at(s, 0x10)?, u64_at(s, 0x20)?);
        let inside = address.checked_sub(first).filter(|at| *at < size)?;
        offset.checked_add(inside)
    })
}

fn read<I: Image>(image: &mut I, range: std::ops::Range<u64>, bytes: u64) -> Option<Vec<u8>> {
    let size = range.end.checked_sub(range.start)?;
    if range.end > bytes || size > TABLE_BYTES {
        return None;
    }
    image.seek(SeekFrom::Start(range.start)).ok()?;
    let mut content = vec![0; size as usize];
    image.read_exact(&mut content).ok()?;
    Some(content)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A file with one segment of data, one symbol table and its names.
    fn image(name: &[u8], limit: u32) -> Vec<u8> {
        const DATA: u64 = 64 + 56;
        const SYMBOLS: u64 = DATA + 8;
        const NAMES: u64 = SYMBOLS + 2 * SYMBOL_BYTES as u64;
        const SECTIONS: u64 = NAMES + 16;
        const ADDRESS: u64 = 0xffff_ffff_8100_0000;
        let mut file = vec![0; SECTIONS as usize + 3 * SECTION_BYTES as usize];
        let mut put = |at: u64, bytes: &[u8]| {
            file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        };
        put(0, b"\x7fELF");
        for (at, value) in [(0x20, 64), (0x28, SECTIONS)] {
            put(at, &u64::to_le_bytes(value));
        }
        put(0x38, &1u16.to_le_bytes());
        put(0x3c, &3u16.to_le_bytes());
        for (at, value) in [(8, DATA), (0x10, ADDRESS), (0x20, 8)] {
            put(64 + at, &u64::to_le_bytes(value));
        }
        put(DATA + 4, &limit.to_le_bytes());
        put(SYMBOLS + 24, &1u32.to_le_bytes());
        put(SYMBOLS + 24 + 8, &(ADDRESS + 4).to_le_bytes());
        put(NAMES + 1, name);
        let table = SECTIONS + SECTION_BYTES;
        put(table + 4, &SYMBOL_TABLE.to_le_bytes());
        put(table + 0x28, &2u32.to_le_bytes());
        for (section, start, size) in [(1, SYMBOLS, 48u64), (2, NAMES, 16)] {
            let at = SECTIONS + section * SECTION_BYTES;
            put(at + 0x18, &start.to_le_bytes());
            put(at + 0x20, &size.to_le_bytes());
        }
        file
    }

    #[test]
    fn the_symbol_tells_or_nothing_does() {
        let limit = |file: Vec<u8>| cpu_limit(&mut Cursor::new(file));
        assert_eq!(limit(image(CPUS, 64)), Some(64));
        assert_eq!(limit(image(b"nr_cpu_idsx\0", 64)), None);
        assert_eq!(limit(image(CPUS, 0)), None);
        assert_eq!(limit(Vec::new()), None);
        assert_eq!(limit(vec![0; 4096]), None);
        let whole = image(CPUS, 64);
        for end in 0..whole.len() {
            limit(whole[..end].to_vec());
        }
        // Each byte broken in turn: an answer or none, and no panic.
        for at in 0..whole.len() {
            let mut file = whole.clone();
            file[at] ^= 0xff;
            limit(file);
        }
    }
}
