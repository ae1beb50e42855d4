//! Tables as guests read them.

use super::*;
use crate::memory::GuestMemory;

fn read(memory: &GuestMemory, at: u64, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    memory.read_slice(&mut buffer, GuestAddress(at)).unwrap();
    buffer
}

fn read_u64(memory: &GuestMemory, at: u64) -> u64 {
    memory.read_obj(GuestAddress(at)).unwrap()
}

/// A whole table, once its checksum has been found right.
fn table(memory: &GuestMemory, at: u64) -> Vec<u8> {
    let length: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
    let bytes = read(memory, at, length as usize);
    assert_eq!(
        bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
        0
    );
    bytes
}

#[test]
fn tables_hang_together() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let slots = [MmioSlot {
        address: 0xd000_1000,
        bytes: 0x1000,
        irq: 5,
    }];
    let rsdp = write(&memory, 3.try_into().unwrap(), &slots, false).unwrap();
    assert_eq!(read(&memory, rsdp.0, 8), b"RSD PTR ");
    let xsdt_at = read_u64(&memory, rsdp.0 + 24);
    assert_eq!(&table(&memory, xsdt_at)[..4], b"XSDT");
    let fadt = table(&memory, read_u64(&memory, xsdt_at + 36));
    assert_eq!(&fadt[..4], b"FACP");
    let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
    assert_ne!(flags & 1 << 20, 0, "hardware-reduced");
    assert_eq!(fadt[128], RESET_VALUE);
    let dsdt = table(
        &memory,
        u64::from_le_bytes(fadt[140..148].try_into().unwrap()),
    );
    assert_eq!(&dsdt[..4], b"DSDT");
    // Extended interrupt descriptors (ACPI 6.5 §6.4.3.6), with one interrupt each: consumed, edge-triggered, active
    // high, not shared, as all pins of the I/O APIC are.
    let interrupts = dsdt.windows(4).filter(|bytes| bytes[..3] == [0x89, 6, 0]);
    let flags: Vec<u8> = interrupts.map(|bytes| bytes[3]).collect();
    assert_eq!(
        flags, [0b011; 4],
        "of the serial port, the button, the generation and the slot"
    );
    for name in [b"LNRO0005", b"ACPI0013", b"VMGENCTR"] {
        assert!(dsdt.windows(8).any(|window| window == name));
    }
    // Where the generation is: a package of two elements (ACPI 6.5 §20.2.5.4), a double word and zero.
    let mut address = b"ADDR\x12\x08\x02\x0c".to_vec();
    address.extend(0xe_f000u32.to_le_bytes());
    address.push(0);
    let has_address = dsdt.windows(address.len()).any(|window| window == address);
    assert!(has_address, "{dsdt:x?}");
    let madt = table(&memory, read_u64(&memory, xsdt_at + 44));
    assert_eq!(&madt[..4], b"APIC");
    assert_eq!(madt.len(), 44 + 3 * 8 + 12);
}

#[test]
fn a_pci_bus_is_told_with_its_window() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let dsdt = |has_pci| {
        let rsdp = write(&memory, 1.try_into().unwrap(), &[], has_pci).unwrap();
        let xsdt = read_u64(&memory, rsdp.0 + 24);
        let fadt = table(&memory, read_u64(&memory, xsdt + 36));
        let at = u64::from_le_bytes(fadt[140..148].try_into().unwrap());
        table(&memory, at)
    };
    let has = |table: &[u8], part: &[u8]| table.windows(part.len()).any(|window| window == part);
    assert!(!has(&dsdt(false), b"PCI0"));
    let table = dsdt(true);
    assert!(has(&table, b"PCI0"));
    // PNP0A03, compressed.
    assert!(has(&table, &[0x41, 0xd0, 0x0a, 0x03]));
    // A 32-bit address space descriptor (ACPI 6.5 §6.4.3.5.2): granularity, first and last address, translation, size.
    let words = [0, 0xe000_0000u32, 0xefff_ffff, 0, 0x1000_0000];
    let window: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(has(&table, &window));
}

#[test]
fn the_largest_machine_fits() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let slots = [MmioSlot {
        address: 0xd000_1000,
        bytes: 0x1000,
        irq: 5,
    }; 19];
    write(
        &memory,
        u64::from(VcpuCount::MAX).try_into().unwrap(),
        &slots,
        true,
    )
    .unwrap();
    let many = [slots[0]; 1000];
    let error = write(&memory, 1.try_into().unwrap(), &many, false).unwrap_err();
    assert!(matches!(error, Error::Room { .. }), "{error}");
}
