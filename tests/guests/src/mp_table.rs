//! The MP table's list of CPUs (Intel MultiProcessor Specification 1.4, chapter 4).

use crate::acpi::checksum;
use crate::mmio::{read8, read16, read32};

/// Where the floating pointer may be: the last kilobyte of base memory, and the BIOS area.
const SEARCHED: [(u64, u64); 2] = [(0x9fc00, 0xa0000), (0xf0000, 0x10_0000)];
/// "_MP_"
const POINTER_SIGNATURE: u32 = 0x5f50_4d5f;
/// "PCMP"
const TABLE_SIGNATURE: u32 = 0x504d_4350;
const HEADER_BYTES: u64 = 44;
const PROCESSOR: u8 = 0;
const PROCESSOR_BYTES: u64 = 20;
/// Size of every other kind of entry in the base table.
const OTHER_BYTES: u64 = 8;
const ENABLED: u8 = 1;

/// The MP configuration table; its physical address. Says what is wrong if there is none.
pub fn find() -> Result<u64, &'static str> {
    let pointer = SEARCHED
        .into_iter()
        .flat_map(|(start, end)| (start..end).step_by(16))
        .find(|address| read32(*address) == POINTER_SIGNATURE)
        .ok_or("no MP floating pointer")?;
    if checksum(pointer, 16) != 0 {
        return Err("the MP floating pointer's checksum is wrong");
    }
    let table = read32(pointer + 4).into();
    if read32(table) != TABLE_SIGNATURE {
        return Err("no MP configuration table where the floating pointer says");
    }
    if checksum(table, read16(table + 4).into()) != 0 {
        return Err("the MP configuration table's checksum is wrong");
    }
    Ok(table)
}

/// The APIC ids of the enabled CPUs that the table at `table` lists, in its order.
pub fn cpus(table: u64) -> impl Iterator<Item = u32> {
    let entries = read16(table + 34);
    let mut next = table + HEADER_BYTES;
    (0..entries).filter_map(move |_| {
        let entry = next;
        if read8(entry) != PROCESSOR {
            next += OTHER_BYTES;
            return None;
        }
        next += PROCESSOR_BYTES;
        (read8(entry + 3) & ENABLED != 0).then(|| read8(entry + 1).into())
    })
}
