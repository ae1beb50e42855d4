//! ELF `vmlinux` images (System V gABI chapters 4 and 5; Linux Documentation/arch/x86/boot.rst).

use super::{Error, Image, LoadedKernel, Protocol, read_into};
use crate::arch::x86_64::address_map::RAM_ABOVE_4G;
use crate::memory::GuestMemory;
use linux_loader::elf::{Elf64_Ehdr, Elf64_Phdr, PT_INTERP, PT_LOAD, PT_NOTE};
use std::io::SeekFrom;
use std::mem::size_of;
use std::ops::Range;
use vm_memory::{ByteValued, GuestAddress};

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the PVH entry point.
const NOTE_PHYS32_ENTRY: u32 = 18;
/// Linux's notes are a few hundred bytes; more than this is not a kernel.
const NOTES_MAX_BYTES: u64 = 1 << 20;
/// COMMAND_LINE_SIZE of x86 Linux less the NUL, and less what may be built in: Linux puts that before what it is
/// given and cuts off what is too long then (`setup_arch`). An ELF image says neither.
const CMDLINE_BYTES: usize = 2047 - BUILT_IN_CMDLINE_BYTES;
/// Enough for the kernels that `kernels/build` makes.
const BUILT_IN_CMDLINE_BYTES: usize = 127;

pub(super) fn is_elf(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

pub(super) fn load<I: Image>(
    ram: &GuestMemory,
    room: Range<u64>,
    image: &mut I,
    file_bytes: u64,
) -> Result<LoadedKernel, Error> {
    let header = read_header(image, file_bytes)?;
    let segments = read_segments(image, &header, file_bytes)?;
    let mut loads: Vec<&Elf64_Phdr> = segments
        .iter()
        .filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0)
        .collect();
    loads.sort_by_key(|segment| segment.p_paddr);
    let range = check_places(&loads, room)?;
    let protocol = match pvh_entry(image, &segments)? {
        Some(entry) => Protocol::Pvh { entry },
        None => Protocol::Linux64 {
            entry: GuestAddress(header.e_entry),
            header: None,
        },
    };
    let (Protocol::Pvh { entry } | Protocol::Linux64 { entry, .. }) = protocol;
    check_entry(entry, &loads)?;
    for segment in loads {
        image
            .seek(SeekFrom::Start(segment.p_offset))
            .map_err(Error::Read)?;
        read_into(ram, segment.p_paddr, image, segment.p_filesz)?;
    }
    Ok(LoadedKernel {
        protocol,
        range,
        cmdline_bytes: CMDLINE_BYTES,
        initrd_max: RAM_ABOVE_4G.0 - 1,
    })
}

fn read_header<I: Image>(image: &mut I, file_bytes: u64) -> Result<Elf64_Ehdr, Error> {
    let header: Elf64_Ehdr = read_object(image, 0, "the ELF header", file_bytes)?;
    let kind = |text: String| Err(Error::ElfKind(text));
    match header.e_ident[4..6] {
        [CLASS_64, LITTLE_ENDIAN] => {}
        [1, _] => {
            return kind(format!(
                "32-bit, machine is {}",
                machine_name(header.e_machine)
            ));
        }
        [_, 2] => return kind("big-endian".into()),
        [class, order] => return kind(format!("class {class}, byte order {order}")),
        _ => return kind("no class".into()),
    }
    if header.e_machine != X86_64 {
        return kind(format!("machine is {}", machine_name(header.e_machine)));
    }
    match header.e_type {
        EXECUTABLE | SHARED => Ok(header),
        1 => kind("an object file, not linked".into()),
        4 => kind("a core dump".into()),
        other => kind(format!("type {other}")),
    }
}

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "EM_386".into(),
        20 => "EM_PPC".into(),
        21 => "EM_PPC64".into(),
        22 => "EM_S390".into(),
        40 => "EM_ARM".into(),
        62 => "EM_X86_64".into(),
        183 => "EM_AARCH64".into(),
        243 => "EM_RISCV".into(),
        258 => "EM_LOONGARCH".into(),
        other => format!("number {other}"),
    }
}

fn read_segments<I: Image>(
    image: &mut I,
    header: &Elf64_Ehdr,
    file_bytes: u64,
) -> Result<Vec<Elf64_Phdr>, Error> {
    let damaged = |text: String| Error::ElfDamaged(text);
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(damaged(format!(
            "program headers of {} bytes",
            header.e_phentsize
        )));
    }
    let mut segments = Vec::new();
    for index in 0..u64::from(header.e_phnum) {
        let offset = header
            .e_phoff
            .checked_add(index * size_of::<Elf64_Phdr>() as u64)
            .ok_or_else(|| damaged("program headers beyond all offsets".into()))?;
        let segment: Elf64_Phdr =
            read_object(image, offset, "the program header table", file_bytes)?;
        if segment.p_type == PT_INTERP {
            return Err(Error::ElfKind(
                "a dynamically linked program for user space".into(),
            ));
        }
        if segment.p_type == PT_LOAD || segment.p_type == PT_NOTE {
            check_file_range(&segment, file_bytes)?;
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn check_file_range(segment: &Elf64_Phdr, file_bytes: u64) -> Result<(), Error> {
    let end = segment
        .p_offset
        .checked_add(segment.p_filesz)
        .ok_or_else(|| Error::ElfDamaged("a segment beyond all offsets".into()))?;
    if end > file_bytes {
        return Err(Error::Truncated {
            what: "a segment",
            end,
            bytes: file_bytes,
        });
    }
    if segment.p_type == PT_LOAD && segment.p_filesz > segment.p_memsz {
        return Err(Error::ElfDamaged(
            "a segment larger in the file than in memory".into(),
        ));
    }
    Ok(())
}

/// Every segment must be in usable RAM and clear of the others; returns the range of them all.
fn check_places(loads: &[&Elf64_Phdr], room: Range<u64>) -> Result<Range<u64>, Error> {
    let mut last_end = 0;
    for segment in loads {
        let start = segment.p_paddr;
        let end = start
            .checked_add(segment.p_memsz)
            .ok_or_else(|| Error::ElfDamaged("a segment beyond all addresses".into()))?;
        if start < room.start {
            let why = "the VMM puts the boot structures (kernels begin at 1 MiB)";
            return Err(Error::Misplaced { start, end, why });
        }
        if end > room.end {
            return Err(Error::KernelRoom {
                start,
                end,
                ram_end: room.end,
            });
        }
        if start < last_end {
            return Err(Error::Misplaced {
                start,
                end,
                why: "another of its segments is",
            });
        }
        last_end = end;
    }
    match loads.first() {
        Some(first) => Ok(first.p_paddr..last_end),
        None => Err(Error::ElfDamaged("no segment to load".into())),
    }
}

fn check_entry(entry: GuestAddress, loads: &[&Elf64_Phdr]) -> Result<(), Error> {
    let inside = |s: &&Elf64_Phdr| (s.p_paddr..s.p_paddr + s.p_memsz).contains(&entry.0);
    if loads.iter().any(inside) {
        return Ok(());
    }
    Err(Error::ElfDamaged(format!(
        "the entry point {:#x} is in no segment",
        entry.0
    )))
}

/// The PVH entry point, if a note segment names one.
fn pvh_entry<I: Image>(
    image: &mut I,
    segments: &[Elf64_Phdr],
) -> Result<Option<GuestAddress>, Error> {
    for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        if segment.p_filesz > NOTES_MAX_BYTES {
            return Err(Error::ElfDamaged(format!(
                "{} bytes of notes",
                segment.p_filesz
            )));
        }
        let mut notes = vec![0; segment.p_filesz as usize];
        image
            .seek(SeekFrom::Start(segment.p_offset))
            .map_err(Error::Read)?;
        image.read_exact(&mut notes).map_err(Error::Read)?;
        if let Some(entry) = find_pvh_note(&notes) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Walks notes: name size, description size, type, then both padded to four bytes.
fn find_pvh_note(mut notes: &[u8]) -> Option<GuestAddress> {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    loop {
        let (name_bytes, desc_bytes) = (word(notes, 0)? as usize, word(notes, 4)? as usize);
        let kind = word(notes, 8)?;
        let name = notes.get(12..12usize.checked_add(name_bytes)?)?;
        let desc_start = 12 + name_bytes.checked_next_multiple_of(4)?;
        let desc = notes.get(desc_start..desc_start.checked_add(desc_bytes)?)?;
        if kind == NOTE_PHYS32_ENTRY && name == b"Xen\0" {
            return Some(GuestAddress(u64::from(word(desc, 0)?)));
        }
        notes = notes.get(desc_start + desc_bytes.checked_next_multiple_of(4)?..)?;
    }
}

fn read_object<T: ByteValued + Default, I: Image>(
    image: &mut I,
    offset: u64,
    what: &'static str,
    file_bytes: u64,
) -> Result<T, Error> {
    let end = offset.saturating_add(size_of::<T>() as u64);
    if end > file_bytes {
        return Err(Error::Truncated {
            what,
            end,
            bytes: file_bytes,
        });
    }
    let mut object = T::default();
    image.seek(SeekFrom::Start(offset)).map_err(Error::Read)?;
    image
        .read_exact(object.as_mut_slice())
        .map_err(Error::Read)?;
    Ok(object)
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
