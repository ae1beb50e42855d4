//! The MP configuration table: how kernels without ACPI find CPUs and interrupt lines.
//!
//! Intel MultiProcessor Specification 1.4, chapter 4.

use super::address_map::{IOAPIC, IOAPIC_PINS, LAPIC, MP_TABLE};
use crate::config::VcpuCount;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Version 1.4 of the specification.
const SPEC_REVISION: u8 = 4;
/// LAPIC and IOAPIC versions as Linux expects them from integrated APICs.
const APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x20;
const CPU_ENABLED: u8 = 1;
const CPU_BOOT: u8 = 2;

/// Entry types (table 4-3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
/// Interrupt types (table 4-10).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXTINT: u8 = 3;

/// Writes the floating pointer and the table into the BIOS area, where guests scan for it (§4). All pins of the I/O APIC are ISA interrupts,
/// edge-triggered and active high ("conforms to the bus").
///
/// # Errors
/// When guest memory is missing there.
pub fn write<M: Bytes<GuestAddress, E = GuestMemoryError>>(
    memory: &M,
    vcpus: VcpuCount,
) -> Result<(), GuestMemoryError> {
    let table = configuration_table(vcpus.get());
    let pointer = floating_pointer();
    memory.write_slice(&pointer, MP_TABLE)?;
    memory.write_slice(&table, GuestAddress(MP_TABLE.0 + pointer.len() as u64))
}

/// §4.1: 16 bytes that a guest finds by their signature.
fn floating_pointer() -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend((MP_TABLE.0 as u32 + 16).to_le_bytes());
    bytes.extend([1, SPEC_REVISION, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut bytes, 10);
    bytes
}

/// §4.2 and §4.3.
fn configuration_table(vcpus: u8) -> Vec<u8> {
    let mut entries: Vec<u8> = Vec::new();
    let mut count: u16 = 0;
    let mut entry = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = CPU_ENABLED | if id == 0 { CPU_BOOT } else { 0 };
        let mut processor = [0u8; 20];
        processor[..4].copy_from_slice(&[PROCESSOR, id, APIC_VERSION, flags]);
        processor[4..8].copy_from_slice(&0x600u32.to_le_bytes()); // family 6
        processor[8..12].copy_from_slice(&0x201u32.to_le_bytes()); // FPU and APIC
        entry(&processor);
    }
    entry(&[BUS, 0, b'I', b'S', b'A', b' ', b' ', b' ']);
    let ioapic_id = vcpus;
    let address = (IOAPIC as u32).to_le_bytes();
    entry(&[
        IO_APIC,
        ioapic_id,
        IOAPIC_VERSION,
        1,
        address[0],
        address[1],
        address[2],
        address[3],
    ]);
    for pin in 0..IOAPIC_PINS as u8 {
        entry(&[IO_INTERRUPT, INT, 0, 0, 0, pin, ioapic_id, pin]);
    }
    entry(&[LOCAL_INTERRUPT, EXTINT, 0, 0, 0, 0, 0, 0]);
    entry(&[LOCAL_INTERRUPT, NMI, 0, 0, 0, 0, 0xff, 1]);

    let length = (44 + entries.len()) as u16;
    let mut table = b"PCMP".to_vec();
    table.extend(length.to_le_bytes());
    table.extend([SPEC_REVISION, 0]);
    table.extend(b"KVMLET  ");
    table.extend(b"MICROVM     ");
    table.extend([0; 6]); // no OEM table
    table.extend(count.to_le_bytes());
    table.extend((LAPIC as u32).to_le_bytes());
    table.extend([0; 4]); // no extended table
    table.extend(entries);
    set_checksum(&mut table, 7);
    table
}

/// All bytes of each structure add up to zero.
fn set_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestMemory;

    fn written(vcpus: u64) -> Vec<u8> {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write(&memory, vcpus.try_into().unwrap()).unwrap();
        let mut area = vec![0; 8192];
        memory.read_slice(&mut area, MP_TABLE).unwrap();
        area
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn the_table_lists_each_vcpu_and_adds_up() {
        for vcpus in [1, 2, 32, u64::from(VcpuCount::MAX)] {
            let area = written(vcpus);
            assert_eq!(sum(&area[..16]), 0);
            let length = usize::from(u16::from_le_bytes([area[20], area[21]]));
            assert_eq!(sum(&area[16..16 + length]), 0);
            let entries = &area[60..];
            let ids: Vec<u8> = (0..vcpus as usize).map(|i| entries[i * 20 + 1]).collect();
            assert_eq!(ids, (0..vcpus as u8).collect::<Vec<_>>());
            assert_eq!(entries[vcpus as usize * 20], BUS);
        }
    }
}
