//! The little of ACPI that finds the CPUs: RSDP, XSDT, MADT (ACPI 6.5 §5.2).

use crate::mmio::{read_bytes, read8, read32, read64};

/// Size of the header that starts each table.
const HEADER_BYTES: u64 = 36;
/// MADT: header, LAPIC address, flags.
const MADT_FIXED_BYTES: u64 = 44;
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
const ENABLED: u32 = 1;

/// The table with `signature` that the XSDT lists; its physical address. `rsdp` is what the
/// boot protocol gave. Says what is wrong, checksums included, if there is none.
pub fn find_table(rsdp: u64, signature: &[u8; 4]) -> Result<u64, &'static str> {
    let mut found = [0; 8];
    read_bytes(rsdp, &mut found);
    if rsdp == 0 || &found != b"RSD PTR " {
        return Err("no RSDP where the VMM says");
    }
    if checksum(rsdp, 20) != 0 || checksum(rsdp, 36) != 0 {
        return Err("the RSDP's checksum is wrong");
    }
    let xsdt = read64(rsdp + 24);
    check_table(xsdt, b"XSDT")?;
    let entries = (length(xsdt) - HEADER_BYTES) / 8;
    for index in 0..entries {
        let table = read64(xsdt + HEADER_BYTES + index * 8);
        let mut found = [0; 4];
        read_bytes(table, &mut found);
        if &found == signature {
            check_table(table, signature)?;
            return Ok(table);
        }
    }
    Err("the XSDT does not list the table")
}

/// The APIC ids of the enabled CPUs that the MADT at `madt` lists, in its order.
pub fn cpus(madt: u64) -> impl Iterator<Item = u32> {
    let end = madt + length(madt);
    let mut next = madt + MADT_FIXED_BYTES;
    core::iter::from_fn(move || {
        while next < end {
            let entry = next;
            let bytes = read8(entry + 1);
            assert!(bytes >= 2, "a MADT entry of {bytes} bytes at {entry:#x}");
            next += u64::from(bytes);
            let (id, flags) = match read8(entry) {
                LOCAL_APIC => (read8(entry + 3).into(), read32(entry + 4)),
                LOCAL_X2APIC => (read32(entry + 4), read32(entry + 8)),
                _ => continue,
            };
            if flags & ENABLED != 0 {
                return Some(id);
            }
        }
        None
    })
}

fn check_table(table: u64, signature: &[u8; 4]) -> Result<(), &'static str> {
    let mut found = [0; 4];
    read_bytes(table, &mut found);
    if &found != signature {
        return Err("a table has the wrong signature");
    }
    if length(table) < HEADER_BYTES || checksum(table, length(table)) != 0 {
        return Err("a table's length or checksum is wrong");
    }
    Ok(())
}

fn length(table: u64) -> u64 {
    read32(table + 4).into()
}

/// Sum of `bytes` bytes; 0 in a sound table.
pub(crate) fn checksum(start: u64, bytes: u64) -> u8 {
    (start..start + bytes).fold(0, |sum, address| sum.wrapping_add(read8(address)))
}
