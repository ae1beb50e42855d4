//! Made-up ELF images, good and bad.

use super::*;
use std::io::Cursor;
use vm_memory::Bytes;

const MIB: u64 = 1 << 20;
const ROOM: Range<u64> = MIB..16 * MIB;
const CODE: &[u8] = b"kernel code";

/// An image with one loadable segment at 2 MiB and, if asked, a PVH note.
fn image(note_entry: Option<u32>) -> Vec<u8> {
    let mut notes = Vec::new();
    if let Some(entry) = note_entry {
        // A note of another kind comes first, with a name that needs padding.
        for (name, kind, desc) in [
            (&b"GNU12\0"[..], 3u32, 1u32),
            (b"Xen\0", NOTE_PHYS32_ENTRY, entry),
        ] {
            for word in [name.len() as u32, 4, kind] {
                notes.extend(word.to_le_bytes());
            }
            notes.extend(name);
            notes.resize(notes.len().next_multiple_of(4), 0);
            notes.extend(desc.to_le_bytes());
        }
    }
    let headers = (size_of::<Elf64_Ehdr>() + 2 * size_of::<Elf64_Phdr>()) as u64;
    let header = Elf64_Ehdr {
        e_ident: [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        e_type: EXECUTABLE,
        e_machine: X86_64,
        e_entry: 2 * MIB,
        e_phoff: size_of::<Elf64_Ehdr>() as u64,
        e_phentsize: size_of::<Elf64_Phdr>() as u16,
        e_phnum: 2,
        ..Default::default()
    };
    let load = Elf64_Phdr {
        p_type: PT_LOAD,
        p_offset: headers,
        p_paddr: 2 * MIB,
        p_filesz: CODE.len() as u64,
        p_memsz: 8192,
        ..Default::default()
    };
    let note = Elf64_Phdr {
        p_type: PT_NOTE,
        p_offset: headers + CODE.len() as u64,
        p_filesz: notes.len() as u64,
        ..Default::default()
    };
    [
        header.as_slice(),
        load.as_slice(),
        note.as_slice(),
        CODE,
        &notes,
    ]
    .concat()
}

fn load_bytes(bytes: &[u8]) -> Result<(GuestMemory, LoadedKernel), Error> {
    let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let kernel = load(&ram, ROOM, &mut Cursor::new(bytes), bytes.len() as u64)?;
    Ok((ram, kernel))
}

/// Overwrites a field of the image, loads it, and returns the message.
fn message_with(offset: usize, bytes: &[u8]) -> String {
    let mut image = image(None);
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    load_bytes(&image).unwrap_err().to_string()
}

#[test]
fn without_a_note_the_entry_is_64_bit() {
    let (ram, kernel) = load_bytes(&image(None)).unwrap();
    assert_eq!(
        kernel.protocol,
        Protocol::Linux64 {
            entry: GuestAddress(2 * MIB),
            header: None
        }
    );
    assert_eq!(kernel.range, 2 * MIB..2 * MIB + 8192);
    let mut code = vec![0; CODE.len()];
    ram.read_slice(&mut code, GuestAddress(2 * MIB)).unwrap();
    assert_eq!(code, CODE);
}

#[test]
fn with_a_note_the_entry_is_pvh() {
    let (_, kernel) = load_bytes(&image(Some(2 * MIB as u32 + 4))).unwrap();
    assert_eq!(
        kernel.protocol,
        Protocol::Pvh {
            entry: GuestAddress(2 * MIB + 4)
        }
    );
}

#[test]
fn foreign_images_are_named() {
    assert_eq!(
        message_with(18, &[183, 0]),
        "not a 64-bit x86 ELF image (machine is EM_AARCH64)"
    );
    assert_eq!(
        message_with(4, &[1]),
        "not a 64-bit x86 ELF image (32-bit, machine is EM_X86_64)"
    );
    assert!(message_with(5, &[2]).contains("big-endian"));
    assert!(message_with(16, &[1, 0]).contains("object file"));
    let interp = size_of::<Elf64_Ehdr>() + size_of::<Elf64_Phdr>();
    assert!(message_with(interp, &PT_INTERP.to_le_bytes()).contains("user space"));
}

#[test]
fn impossible_places_are_named() {
    const LOAD: usize = size_of::<Elf64_Ehdr>();
    let (paddr, filesz, memsz) = (LOAD + 24, LOAD + 32, LOAD + 40);
    assert!(message_with(paddr, &0x8000u64.to_le_bytes()).contains("boot structures"));
    assert!(message_with(paddr, &(64 * MIB).to_le_bytes()).contains("too little guest memory"));
    assert!(message_with(memsz, &u64::MAX.to_le_bytes()).contains("beyond all addresses"));
    assert!(message_with(filesz, &(1u64 << 40).to_le_bytes()).contains("truncated"));
    assert!(message_with(filesz, &u64::MAX.to_le_bytes()).contains("beyond all offsets"));
    assert!(message_with(memsz, &1u64.to_le_bytes()).contains("larger in the file"));
    assert!(message_with(24, &0u64.to_le_bytes()).contains("entry point"));
    assert!(message_with(54, &[1, 0]).contains("program headers of 1 bytes"));
    assert!(message_with(32, &u64::MAX.to_le_bytes()).contains("truncated"));
    assert!(message_with(56, &[0, 0]).contains("no segment"));
}

#[test]
fn every_truncation_is_an_error_and_none_a_panic() {
    let whole = image(Some(2 * MIB as u32));
    for bytes in 0..whole.len() {
        assert!(load_bytes(&whole[..bytes]).is_err(), "{bytes}");
    }
}

#[test]
fn there_is_room_for_what_is_built_in() {
    for fragment in [
        include_str!("../../../../../kernels/microvm.config"),
        include_str!("../../../../../kernels/software-kvm.config"),
    ] {
        let built_in = fragment
            .lines()
            .find_map(|line| line.strip_prefix("CONFIG_CMDLINE=\""))
            .unwrap();
        // The closing quote takes the place of the space between the two.
        assert!(
            built_in.len() <= super::BUILT_IN_CMDLINE_BYTES,
            "{built_in}"
        );
    }
}
