//! bzImage: setup header, decompressor and compressed kernel (Linux Documentation/arch/x86/boot.rst).

use super::{Error, Image, LoadedKernel, Protocol, read_into};
use crate::arch::x86_64::address_map::HIGH_RAM;
use crate::memory::GuestMemory;
use linux_loader::bootparam::setup_header;
use std::io::SeekFrom;
use std::mem::size_of;
use std::ops::Range;
use vm_memory::{ByteValued, GuestAddress};

/// Where the setup header begins in the file, and the first byte behind it.
const HEADER: usize = 0x1f1;
pub(super) const HEADER_END: usize = HEADER + size_of::<setup_header>();
const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// Protocol 2.12 (Linux 3.8) introduced `xloadflags`.
const PROTOCOL_2_12: u16 = 0x20c;
/// `xloadflags`: there is a 64-bit entry at offset 0x200.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// What `setup_sects` of 0 means, for ancient images.
const DEFAULT_SETUP_SECTORS: u64 = 4;

pub(super) fn is_bzimage(start: &[u8]) -> bool {
    read_header(start).is_some_and(|h| h.boot_flag == BOOT_FLAG && h.header == MAGIC)
}

fn read_header(start: &[u8]) -> Option<setup_header> {
    let mut header = setup_header::default();
    header
        .as_mut_slice()
        .copy_from_slice(start.get(HEADER..HEADER_END)?);
    Some(header)
}

pub(super) fn load<I: Image>(
    ram: &GuestMemory,
    room: Range<u64>,
    image: &mut I,
    file_bytes: u64,
    start: &[u8],
) -> Result<LoadedKernel, Error> {
    let header = read_header(start).ok_or_else(|| Error::BzImage("no setup header".into()))?;
    let (version, flags) = (header.version, header.xloadflags);
    if version < PROTOCOL_2_12 {
        let text = format!(
            "boot protocol {}.{}, and 2.12 is needed",
            version >> 8,
            version & 0xff
        );
        return Err(Error::BzImage(text));
    }
    if flags & XLF_KERNEL_64 == 0 {
        return Err(Error::BzImage(
            "it has no 64-bit entry point (a 32-bit kernel?)".into(),
        ));
    }
    let payload = payload_range(&header, file_bytes)?;
    let range = choose_place(&header, payload.end - payload.start, room)?;
    image
        .seek(SeekFrom::Start(payload.start))
        .map_err(Error::Read)?;
    read_into(ram, range.start, image, payload.end - payload.start)?;
    Ok(LoadedKernel {
        protocol: Protocol::Linux64 {
            entry: GuestAddress(range.start + ENTRY_64),
            header: Some(header),
        },
        range,
        cmdline_bytes: header.cmdline_size as usize,
        initrd_max: u64::from(header.initrd_addr_max),
    })
}

/// The part of the file behind the real-mode setup sectors; `syssize` counts it in 16-byte units.
fn payload_range(header: &setup_header, file_bytes: u64) -> Result<Range<u64>, Error> {
    let sectors = match header.setup_sects {
        0 => DEFAULT_SETUP_SECTORS,
        n => u64::from(n),
    };
    let start = (sectors + 1) * SECTOR;
    let (what, end) = ("the kernel", start + u64::from(header.syssize) * 16);
    if end <= start + ENTRY_64 {
        return Err(Error::BzImage(
            "there is no kernel behind the setup sectors".into(),
        ));
    }
    // The last unit may be partly filled.
    if end - 15 > file_bytes {
        return Err(Error::Truncated {
            what,
            end,
            bytes: file_bytes,
        });
    }
    Ok(start..end.min(file_bytes))
}

/// The preferred address if the kernel may be moved there, else 1 MiB; with room to decompress (`init_size`).
fn choose_place(
    header: &setup_header,
    payload_bytes: u64,
    room: Range<u64>,
) -> Result<Range<u64>, Error> {
    let start = match header.relocatable_kernel {
        0 => HIGH_RAM.0,
        _ => header.pref_address.max(HIGH_RAM.0),
    };
    let end = u64::from(header.init_size)
        .max(payload_bytes)
        .checked_add(start)
        .ok_or_else(|| Error::BzImage(format!("it wants to be at {start:#x}")))?;
    if end > room.end {
        return Err(Error::KernelRoom {
            start,
            end,
            ram_end: room.end,
        });
    }
    Ok(start..end)
}

#[cfg(test)]
#[path = "bzimage_tests.rs"]
mod tests;
