//! PVH direct boot (Xen docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).

use super::registers::{self, BootState, CR0_ET, CR0_PE, RFLAGS, Registers};
use super::{Error, Handoff};
use crate::arch::x86_64::address_map::{CMDLINE, GDT, PVH_START_INFO, memory_map};
use crate::memory::GuestMemory;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress};

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// Version 1 added the memory map.
const VERSION: u32 = 1;
const CS: u16 = 0x08;
const DS: u16 = 0x10;
const TSS: u16 = 0x18;
/// The module list and the memory map follow the structure itself.
const MODULES: GuestAddress = GuestAddress(PVH_START_INFO.0 + 0x100);
const MEMORY_MAP: GuestAddress = GuestAddress(PVH_START_INFO.0 + 0x200);

pub(super) fn prepare(
    ram: &GuestMemory,
    entry: GuestAddress,
    handoff: &Handoff,
) -> Result<BootState, Error> {
    let map = memory_map(handoff.memory);
    for (index, entry) in map.iter().enumerate() {
        let entry = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.bytes,
            type_: entry.kind as u32,
            reserved: 0,
        };
        let at = MEMORY_MAP.0 + (index * size_of::<hvm_memmap_table_entry>()) as u64;
        ram.write_obj(entry, GuestAddress(at))
            .map_err(Error::memory)?;
    }
    let mut info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        cmdline_paddr: CMDLINE.0,
        rsdp_paddr: handoff.rsdp.0,
        memmap_paddr: MEMORY_MAP.0,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    if let Some(initrd) = &handoff.initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.start,
            size: initrd.end - initrd.start,
            ..Default::default()
        };
        ram.write_obj(module, MODULES).map_err(Error::memory)?;
        (info.nr_modules, info.modlist_paddr) = (1, MODULES.0);
    }
    ram.write_obj(info, PVH_START_INFO).map_err(Error::memory)?;

    let (code, data, task) = (
        registers::code_32(CS),
        registers::data(DS),
        registers::task(TSS),
    );
    let gdt_bytes = registers::write_gdt(ram, &[code, data, task])?;
    Ok(BootState {
        registers: Registers {
            rip: entry.0,
            rbx: PVH_START_INFO.0,
            rflags: RFLAGS,
            ..Default::default()
        },
        cr0: CR0_PE | CR0_ET,
        cr3: 0,
        cr4: 0,
        efer: 0,
        code,
        data,
        task,
        gdt: GDT,
        gdt_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    #[test]
    fn start_info_points_to_everything() {
        let ram = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let handoff = Handoff {
            memory: 16.mib(),
            cmdline_bytes: 0,
            initrd: Some(0xf0_0000..0xf0_1000),
            rsdp: GuestAddress(0xe_0000),
        };
        let state = prepare(&ram, GuestAddress(0x20_0000), &handoff).unwrap();
        assert_eq!(
            (state.registers.rip, state.registers.rbx),
            (0x20_0000, PVH_START_INFO.0)
        );
        let info: hvm_start_info = ram.read_obj(PVH_START_INFO).unwrap();
        assert_eq!(
            (info.magic, info.nr_modules, info.memmap_entries),
            (MAGIC, 1, 4)
        );
        let module: hvm_modlist_entry = ram.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0xf0_0000, 0x1000));
        let last = GuestAddress(info.memmap_paddr + 3 * 24);
        let ram_entry: hvm_memmap_table_entry = ram.read_obj(last).unwrap();
        assert_eq!(
            (ram_entry.addr, ram_entry.size, ram_entry.type_),
            (0x10_0000, 15 << 20, 1)
        );
    }
}
