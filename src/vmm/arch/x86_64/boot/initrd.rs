//! Where the initial RAM disk goes.

use super::error::{DISK_HEAD_BYTES, disk_image};
use super::{Error, Image, LoadedKernel, read_into};
use crate::memory::GuestMemory;
use std::io::SeekFrom;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

const PAGE: u64 = 4096;

/// Reads the initrd to the highest pages that the kernel allows, where nothing else is.
pub(super) fn load<I: Image>(
    ram: &GuestMemory,
    room: Range<u64>,
    kernel: &LoadedKernel,
    image: &mut I,
) -> Result<Range<u64>, Error> {
    let bytes = image.seek(SeekFrom::End(0)).map_err(Error::InitrdRead)?;
    image.rewind().map_err(Error::InitrdRead)?;
    if bytes == 0 {
        return Err(Error::InitrdEmpty);
    }
    let end = room.end.min(kernel.initrd_max.saturating_add(1));
    let free = kernel.range.end.next_multiple_of(PAGE)..end;
    let start = end.checked_sub(bytes).map(|start| start / PAGE * PAGE);
    let Some(start) = start.filter(|start| *start >= free.start) else {
        return Err(Error::InitrdRoom {
            bytes,
            room: free.end.saturating_sub(free.start),
        });
    };
    read_into(ram, start, image, bytes)?;
    let mut head = vec![0; bytes.min(DISK_HEAD_BYTES as u64) as usize];
    ram.read_slice(&mut head, GuestAddress(start))
        .map_err(Error::memory)?;
    if let Some(found) = disk_image(&head) {
        return Err(Error::InitrdFormat(found));
    }
    Ok(start..start + bytes)
}

/// What an initrd is compressed by, and what makes it a plain one again, by its first bytes (Linux lib/decompress.c).
pub fn compression(head: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match head {
        [0x1f, 0x8b, ..] => ("gzip", "gzip -dc"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "zstd -dc"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("xz", "xz -dc"),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", "lz4 -dc"),
        [b'B', b'Z', b'h', ..] => ("bzip2", "bzip2 -dc"),
        [0x5d, 0, 0, ..] => ("lzma", "xz -dc"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::x86_64::boot::Protocol;
    use std::io::Cursor;

    const MIB: u64 = 1 << 20;

    fn kernel(range: Range<u64>, initrd_max: u64) -> LoadedKernel {
        let protocol = Protocol::Pvh {
            entry: GuestAddress(range.start),
        };
        LoadedKernel {
            protocol,
            range,
            cmdline_bytes: 0,
            initrd_max,
        }
    }

    fn place(kernel: &LoadedKernel, bytes: u64) -> Result<Range<u64>, Error> {
        let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        load(
            &ram,
            MIB..16 * MIB,
            kernel,
            &mut Cursor::new(vec![7u8; bytes as usize]),
        )
    }

    #[test]
    fn it_goes_to_the_top_in_whole_pages() {
        let place = place(&kernel(MIB..4 * MIB, u64::MAX), 5000).unwrap();
        assert_eq!(place, 16 * MIB - 8192..16 * MIB - 8192 + 5000);
    }

    #[test]
    fn the_kernels_limit_is_kept() {
        let place = place(&kernel(MIB..4 * MIB, 8 * MIB - 1), 4096).unwrap();
        assert_eq!(place, 8 * MIB - 4096..8 * MIB);
    }

    #[test]
    fn it_never_touches_the_kernel() {
        let kernel = kernel(MIB..15 * MIB + 1, u64::MAX);
        assert!(place(&kernel, MIB - 4096).is_ok());
        let error = place(&kernel, MIB - 4095).unwrap_err();
        assert!(
            matches!(error, Error::InitrdRoom { room: 1044480, .. }),
            "{error}"
        );
        assert!(matches!(place(&kernel, 0), Err(Error::InitrdEmpty)));
        assert!(place(&kernel, 32 * MIB).is_err());
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert_eq!(compression(b"\x28\xb5\x2f\xfd\x04").unwrap().0, "zstd");
        assert_eq!(compression(b"\x1f\x8b\x08").unwrap().1, "gzip -dc");
        assert_eq!(compression(b"070701"), None);
        assert_eq!(compression(b""), None);
    }

    #[test]
    fn a_disk_is_no_initrd() {
        let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let mut image = Cursor::new([&b"QFI\xfb\0\0\0\x03"[..], &[0; 4096]].concat());
        let kernel = kernel(MIB..2 * MIB, u64::MAX);
        let error = super::load(&ram, MIB..16 * MIB, &kernel, &mut image).unwrap_err();
        assert!(error.concerns_initrd() && error.help().is_some());
        assert!(error.to_string().contains("qcow2"), "{error}");
    }
}
