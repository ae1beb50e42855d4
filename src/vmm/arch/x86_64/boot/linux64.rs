//! The Linux 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

use super::registers::{
    self, BootState, CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS, Registers,
};
use super::{Error, Handoff};
use crate::arch::x86_64::address_map::{
    BOOT_STACK, CMDLINE, GDT, PAGE_TABLES, ZERO_PAGE, memory_map,
};
use crate::memory::GuestMemory;
use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestAddress};

/// Selectors that the protocol prescribes.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;
/// Page-table entry bits (Intel SDM vol. 3A §4.5).
const PRESENT_WRITABLE: u64 = 3;
const PAGE_2M: u64 = 1 << 7;
const TABLE: u64 = 4096;
const GIGABYTES: u64 = 4;
/// `type_of_loader` for one without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;

pub(super) fn prepare(
    ram: &GuestMemory,
    entry: GuestAddress,
    header: Option<setup_header>,
    handoff: &Handoff,
) -> Result<BootState, Error> {
    let params = zero_page(header, handoff);
    ram.write_obj(params, ZERO_PAGE).map_err(Error::memory)?;
    write_page_tables(ram)?;
    let (code, data) = (registers::code_64(BOOT_CS), registers::data(BOOT_DS));
    let task = registers::task(BOOT_TSS);
    let gdt_bytes = registers::write_gdt(ram, &[code, data, task])?;
    Ok(BootState {
        registers: Registers {
            rip: entry.0,
            rsi: ZERO_PAGE.0,
            rsp: BOOT_STACK.0,
            rbp: BOOT_STACK.0,
            rflags: RFLAGS,
            ..Default::default()
        },
        cr0: CR0_PE | CR0_ET | CR0_PG,
        cr3: PAGE_TABLES.0,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        code,
        data,
        task,
        gdt: GDT,
        gdt_bytes,
    })
}

fn zero_page(header: Option<setup_header>, handoff: &Handoff) -> boot_params {
    // An ELF image comes without a setup header; Linux then reads only these fields.
    let hdr = header.unwrap_or(setup_header {
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        kernel_alignment: 0x0100_0000,
        ..Default::default()
    });
    let mut params = boot_params {
        hdr,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = CMDLINE.0 as u32;
    params.hdr.cmdline_size = handoff.cmdline_bytes as u32;
    if let Some(initrd) = &handoff.initrd {
        params.hdr.ramdisk_image = initrd.start as u32;
        params.hdr.ramdisk_size = (initrd.end - initrd.start) as u32;
    }
    params.acpi_rsdp_addr = handoff.rsdp.0;
    let map = memory_map(handoff.memory);
    params.e820_entries = map.len() as u8;
    for (slot, entry) in params.e820_table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr: entry.start,
            size: entry.bytes,
            r#type: entry.kind as u32,
        };
    }
    params
}

/// Maps the first 4 GiB to themselves: one PML4, one PDPT and a page directory for each gigabyte.
fn write_page_tables(ram: &GuestMemory) -> Result<(), Error> {
    let pdpt = PAGE_TABLES.0 + TABLE;
    let directories = pdpt + TABLE;
    let write = |value: u64, at: u64| {
        ram.write_obj(value, GuestAddress(at))
            .map_err(Error::memory)
    };
    write(pdpt | PRESENT_WRITABLE, PAGE_TABLES.0)?;
    for gigabyte in 0..GIGABYTES {
        write(
            (directories + gigabyte * TABLE) | PRESENT_WRITABLE,
            pdpt + gigabyte * 8,
        )?;
    }
    let entries: Vec<u8> = (0..GIGABYTES * 512)
        .flat_map(|page| (page << 21 | PAGE_2M | PRESENT_WRITABLE).to_le_bytes())
        .collect();
    ram.write_slice(&entries, GuestAddress(directories))
        .map_err(Error::memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MemorySize;

    fn ram() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap()
    }

    fn handoff() -> Handoff {
        let (memory, initrd) = (16.mib(), Some(0xf0_0000..0xf0_1234));
        Handoff {
            memory,
            cmdline_bytes: 9,
            initrd,
            rsdp: GuestAddress(0xe_0000),
        }
    }

    #[test]
    fn the_zero_page_tells_all() {
        let ram = ram();
        let state = prepare(&ram, GuestAddress(0x100_0000), None, &handoff()).unwrap();
        assert_eq!(
            (state.registers.rip, state.registers.rsi),
            (0x100_0000, ZERO_PAGE.0)
        );
        let params: boot_params = ram.read_obj(ZERO_PAGE).unwrap();
        assert_eq!({ params.hdr.ramdisk_size }, 0x1234);
        assert_eq!({ params.acpi_rsdp_addr }, 0xe_0000);
        assert_eq!(params.e820_entries, 4);
        assert_eq!({ params.e820_table[3].addr }, 0x10_0000);
    }

    #[test]
    fn page_tables_map_four_gigabytes_to_themselves() {
        let ram = ram();
        write_page_tables(&ram).unwrap();
        let walk = |address: u64| {
            let entry = |table: u64, index: u64| -> u64 {
                ram.read_obj(GuestAddress((table & !0xfff) + index * 8))
                    .unwrap()
            };
            let pdpt = entry(PAGE_TABLES.0, address >> 39 & 511);
            let directory = entry(pdpt, address >> 30 & 511);
            let page = entry(directory, address >> 21 & 511);
            assert_eq!(page & 0xfff, PAGE_2M | PRESENT_WRITABLE);
            (page & !0xfff) + (address & 0x1f_ffff)
        };
        for address in [0, 0x1234_5678, 0xd000_0000, 0xffff_ffff] {
            assert_eq!(walk(address), address);
        }
    }
}
