//! Made-up bzImages, good and bad.

use super::*;
use crate::arch::x86_64::boot::load_kernel;
use crate::config::MemorySize;
use std::io::Cursor;
use vm_memory::Bytes;

const MIB: u64 = 1 << 20;

fn header() -> setup_header {
    setup_header {
        setup_sects: 1,
        syssize: 0x1000 / 16,
        boot_flag: BOOT_FLAG,
        header: MAGIC,
        version: 0x20f,
        xloadflags: XLF_KERNEL_64,
        relocatable_kernel: 1,
        pref_address: 4 * MIB,
        init_size: MIB as u32,
        cmdline_size: 2047,
        initrd_addr_max: 0x7fff_ffff,
        ..Default::default()
    }
}

fn image(header: setup_header) -> Vec<u8> {
    let mut bytes = vec![0; 2 * 512 + 0x1000];
    bytes[HEADER..HEADER_END].copy_from_slice(header.as_slice());
    bytes[1024..].fill(0x90);
    bytes
}

fn load_bytes(bytes: Vec<u8>) -> Result<(GuestMemory, LoadedKernel), Error> {
    let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let kernel = load_kernel(&ram, 16.mib(), &mut Cursor::new(bytes))?;
    Ok((ram, kernel))
}

fn message(header: setup_header) -> String {
    load_bytes(image(header)).unwrap_err().to_string()
}

#[test]
fn it_goes_where_it_prefers_to_be() {
    let (ram, kernel) = load_bytes(image(header())).unwrap();
    assert_eq!(kernel.range, 4 * MIB..5 * MIB);
    let entry = GuestAddress(4 * MIB + ENTRY_64);
    assert!(
        matches!(kernel.protocol, Protocol::Linux64 { entry: e, header: Some(_) } if e == entry)
    );
    assert_eq!(
        ram.read_obj::<u8>(GuestAddress(4 * MIB + 0xfff)).unwrap(),
        0x90
    );
    assert_eq!(
        (kernel.cmdline_bytes, kernel.initrd_max),
        (2047, 0x7fff_ffff)
    );
}

#[test]
fn one_that_cannot_move_goes_to_one_mebibyte() {
    let (_, kernel) = load_bytes(image(setup_header {
        relocatable_kernel: 0,
        ..header()
    }))
    .unwrap();
    assert_eq!(kernel.range.start, MIB);
}

#[test]
fn what_is_missing_is_named() {
    assert!(
        message(setup_header {
            version: 0x204,
            ..header()
        })
        .contains("boot protocol 2.4")
    );
    assert!(
        message(setup_header {
            xloadflags: 0,
            ..header()
        })
        .contains("64-bit entry")
    );
    assert!(
        message(setup_header {
            syssize: 0,
            ..header()
        })
        .contains("no kernel behind")
    );
    assert!(
        message(setup_header {
            syssize: 0x10_0000,
            ..header()
        })
        .contains("truncated")
    );
    assert!(
        message(setup_header {
            init_size: u32::MAX,
            ..header()
        })
        .contains("too little")
    );
    assert!(
        message(setup_header {
            pref_address: u64::MAX,
            ..header()
        })
        .contains("wants to be at")
    );
    assert!(
        message(setup_header {
            boot_flag: 0,
            ..header()
        })
        .contains("neither")
    );
}

#[test]
fn other_files_are_named() {
    let message = |bytes: &[u8]| load_bytes(bytes.to_vec()).unwrap_err().to_string();
    assert_eq!(message(b""), "the file is empty");
    assert!(message(b"\x1f\x8b\x08").contains("gzip"));
    assert!(message(b"070701 and more").contains("initrd"));
    assert!(message(b"#!/bin/sh").contains("script"));
    assert_eq!(
        message(b"hello"),
        "neither an ELF image (vmlinux) nor a bzImage"
    );
    let mut arm = vec![0; 1024];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    assert!(message(&arm).contains("arm64"));
}
