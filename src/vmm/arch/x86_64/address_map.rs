//! Where things are in the guest's physical address space and among its I/O ports.
//!
//! ```text
//! 0x0000_0500  GDT of the boot state         0x000a_0000  legacy hole (RAM, but not reported)
//! 0x0000_6000  PVH start_info                0x000e_0000  ACPI tables, RSDP first
//! 0x0000_7000  zero page (boot_params)       0x000e_f000  the machine's generation
//! 0x0000_8ff0  boot stack                    0x000f_0000  MP table
//! 0x0000_9000  boot page tables              0x0010_0000  RAM: kernel, ..., initrd at the top
//! 0x0002_0000  kernel command line           0xc000_0000  MMIO gap: devices, IOAPIC, LAPIC
//!                                            0x1_0000_0000  RAM above 4 GiB
//! ```

pub use kvmlet_contract::machine::{
    BOOT_TIMER_ADDRESS as BOOT_TIMER, GENERATION_PIN as GENERATION_IRQ, GENERATION_PORT,
    POWER_BUTTON_PIN as POWER_BUTTON_IRQ, PVPANIC_PORT as PVPANIC, SLEEP_CONTROL_PORT as POWER,
};

use crate::config::Memory;
use kvmlet_contract::machine::GENERATION_ADDRESS;
use vm_memory::GuestAddress;

/// Global descriptor table of the boot state.
pub const GDT: GuestAddress = GuestAddress(0x500);
/// PVH `hvm_start_info`, its module list and memory map.
pub const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
/// `struct boot_params` of the Linux boot protocol.
pub const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// First byte above the boot stack, which grows down.
pub const BOOT_STACK: GuestAddress = GuestAddress(0x8ff0);
/// PML4 of the boot page tables; the other tables follow it.
pub const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
/// The kernel command line.
pub const CMDLINE: GuestAddress = GuestAddress(0x2_0000);
/// The longest command line with its NUL that fits below the next structure, in bytes.
pub const CMDLINE_BYTES: usize = 0x1_0000;
/// End of conventional memory, by custom; an extended BIOS data area would begin here.
pub const EBDA: GuestAddress = GuestAddress(0x9_fc00);
/// End of the extended BIOS data area.
pub const EBDA_END: GuestAddress = GuestAddress(0xa_0000);
/// Where guests look for the RSDP (ACPI 6.5 §5.2.5.1).
pub const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0000);
/// The machine's generation, on a page that has nothing else: tables end below it.
pub const GENERATION: GuestAddress = GuestAddress(GENERATION_ADDRESS);
/// The MP table, at the start of the 64 KiB that guests scan for it (MP spec 1.4 §4).
pub const MP_TABLE: GuestAddress = GuestAddress(0xf_0000);
/// End of the BIOS area.
pub const BIOS_END: GuestAddress = GuestAddress(0x10_0000);
/// Where kernels are loaded from.
pub const HIGH_RAM: GuestAddress = GuestAddress(0x10_0000);
/// The hole in RAM below 4 GiB, where devices are.
pub const MMIO_GAP: GuestAddress = GuestAddress(0xc000_0000);
/// RAM goes on here when it does not fit below the gap.
pub const RAM_ABOVE_4G: GuestAddress = GuestAddress(0x1_0000_0000);

/// First virtio-mmio device; the others follow, one page each.
pub const VIRTIO_MMIO: u64 = 0xd000_1000;
/// Where registers of PCI functions are.
pub const PCI_WINDOW: u64 = 0xe000_0000;
/// Size of that window, in bytes.
pub const PCI_WINDOW_BYTES: u64 = 0x1000_0000;
/// Ports through which configuration spaces of PCI functions are reached.
pub const PCI_CONFIG: u16 = 0xcf8;
/// I/O APIC (the customary address).
pub const IOAPIC: u64 = 0xfec0_0000;
/// Local APIC (architectural reset value).
pub const LAPIC: u64 = 0xfee0_0000;
/// Three pages that KVM needs on Intel processors without unrestricted guest mode.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// One page likewise, for the identity map.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// First serial port.
pub const COM1: u16 = 0x3f8;
/// Interrupt of the first serial port.
pub const COM1_IRQ: u32 = 4;
/// Port that tells the size of an XSAVE area, and has one written; see [`FPU_RESTORE`].
pub const FPU_SAVE: u16 = 0x508;
/// Port that has registers taken from an XSAVE area, where KVM interprets a kernel that cannot execute XRSTOR. Kernels of
/// kvmlet's own know both from `kernels/patches`.
pub const FPU_RESTORE: u16 = 0x50c;
/// Keyboard controller: data at +0, status and command at +4.
pub const I8042: u16 = 0x60;

/// Pins of the I/O APIC, which are also the first GSIs.
pub const IOAPIC_PINS: usize = 24;

/// The ranges of guest RAM for a size: one region, or two around the MMIO gap.
pub fn ram_ranges(memory: Memory) -> Vec<(GuestAddress, usize)> {
    let bytes = memory.bytes();
    let low = bytes.min(MMIO_GAP.0);
    let mut ranges = vec![(GuestAddress(0), low as usize)];
    if bytes > low {
        ranges.push((RAM_ABOVE_4G, (bytes - low) as usize));
    }
    ranges
}

/// The first address behind all RAM; it must be within the guest's physical address width.
pub fn ram_end(memory: Memory) -> u64 {
    match memory.bytes() {
        bytes if bytes <= MMIO_GAP.0 => bytes,
        bytes => RAM_ABOVE_4G.0 + (bytes - MMIO_GAP.0),
    }
}

/// What a range of the memory map is, with the numbers of e820 (ACPI 6.5 §15) and PVH, which agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// Usable RAM.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// One entry of the memory map that a guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First address.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// What is there.
    pub kind: RangeKind,
}

/// The memory map for a size, in ascending order and without overlaps.
pub fn memory_map(memory: Memory) -> Vec<MapEntry> {
    let entry = |start: u64, end: u64, kind| MapEntry {
        start,
        bytes: end - start,
        kind,
    };
    let low_end = memory.bytes().min(MMIO_GAP.0);
    let mut map = vec![
        entry(0, EBDA.0, RangeKind::Ram),
        entry(EBDA.0, EBDA_END.0, RangeKind::Reserved),
        entry(ACPI_TABLES.0, BIOS_END.0, RangeKind::Reserved),
        entry(HIGH_RAM.0, low_end, RangeKind::Ram),
    ];
    if memory.bytes() > MMIO_GAP.0 {
        map.push(entry(RAM_ABOVE_4G.0, ram_end(memory), RangeKind::Ram));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    #[test]
    fn ram_goes_around_the_gap() {
        for (memory, regions) in [
            (16.mib(), 1),
            (3.gib(), 1),
            (3073.mib(), 2),
            (4.gib(), 2),
            (6.gib(), 2),
        ] {
            let ranges = ram_ranges(memory);
            assert_eq!(ranges.len(), regions, "{memory}");
            assert_eq!(
                ranges.iter().map(|r| r.1 as u64).sum::<u64>(),
                memory.bytes()
            );
            assert!(ranges[0].0.0 + ranges[0].1 as u64 <= MMIO_GAP.0);
            let last = ranges.last().unwrap();
            assert_eq!(last.0.0 + last.1 as u64, ram_end(memory));
        }
    }

    #[test]
    fn the_map_is_sorted_and_holds_all_ram_but_the_holes() {
        for memory in [16.mib(), 3.gib(), 4.gib(), 6.gib()] {
            let map = memory_map(memory);
            for pair in map.windows(2) {
                assert!(pair[0].start + pair[0].bytes <= pair[1].start, "{memory}");
            }
            let ram: u64 = map
                .iter()
                .filter(|e| e.kind == RangeKind::Ram)
                .map(|e| e.bytes)
                .sum();
            assert_eq!(ram, memory.bytes() - (HIGH_RAM.0 - EBDA.0));
        }
    }
}
