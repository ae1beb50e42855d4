//! The state in which a boot protocol wants the first vCPU.

use super::Error;
use crate::arch::x86_64::address_map::GDT;
use crate::memory::GuestMemory;
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress};

/// Control-register bits (Intel SDM vol. 3A §2.5).
pub(super) const CR0_PE: u64 = 1;
pub(super) const CR0_ET: u64 = 1 << 4;
pub(super) const CR0_PG: u64 = 1 << 31;
pub(super) const CR4_PAE: u64 = 1 << 5;
/// EFER (Intel SDM vol. 3A §2.2.1).
pub(super) const EFER_LME: u64 = 1 << 8;
pub(super) const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one.
pub(super) const RFLAGS: u64 = 2;

/// Plain data for whoever builds vCPUs: general registers whole, and the special ones that differ from reset.
#[derive(Clone, Debug)]
pub struct BootState {
    /// RIP and what the protocol passes in registers.
    pub registers: kvm_regs,
    pub(super) cr0: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
    pub(super) code: kvm_segment,
    pub(super) data: kvm_segment,
    pub(super) task: kvm_segment,
    pub(super) gdt_bytes: u16,
}

impl BootState {
    /// Changes the special registers of a vCPU after reset to what the protocol wants.
    pub fn apply(&self, special: &mut kvm_sregs) {
        special.cr0 = self.cr0;
        special.cr3 = self.cr3;
        special.cr4 = self.cr4;
        special.efer = self.efer;
        special.cs = self.code;
        special.tr = self.task;
        for segment in [
            &mut special.ds,
            &mut special.es,
            &mut special.fs,
            &mut special.gs,
            &mut special.ss,
        ] {
            *segment = self.data;
        }
        special.gdt.base = GDT.0;
        special.gdt.limit = self.gdt_bytes - 1;
        special.idt.base = 0;
        special.idt.limit = 0;
    }
}

/// A flat segment, 0 to 4 GiB, ring 0 (Intel SDM vol. 3A §3.4.5).
fn flat(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// Execute and read, accessed.
pub(super) fn code_32(selector: u16) -> kvm_segment {
    kvm_segment {
        db: 1,
        ..flat(selector, 0xb)
    }
}

/// Execute and read, accessed, long mode.
pub(super) fn code_64(selector: u16) -> kvm_segment {
    kvm_segment {
        l: 1,
        ..flat(selector, 0xb)
    }
}

/// Read and write, accessed.
pub(super) fn data(selector: u16) -> kvm_segment {
    kvm_segment {
        db: 1,
        ..flat(selector, 0x3)
    }
}

/// A busy task state segment at 0, of the least size.
pub(super) fn task(selector: u16) -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        g: 0,
        s: 0,
        ..flat(selector, 0xb)
    }
}

/// Writes descriptors for the given segments at their selectors; returns the size of the table.
pub(super) fn write_gdt(ram: &GuestMemory, segments: &[kvm_segment]) -> Result<u16, Error> {
    let entries = segments
        .iter()
        .map(|s| usize::from(s.selector >> 3))
        .max()
        .unwrap_or(0)
        + 1;
    let mut table = vec![0u64; entries];
    for segment in segments {
        table[usize::from(segment.selector >> 3)] = descriptor(segment);
    }
    for (index, entry) in table.iter().enumerate() {
        ram.write_obj(*entry, GuestAddress(GDT.0 + index as u64 * 8))
            .map_err(Error::Memory)?;
    }
    Ok((entries * 8) as u16)
}

/// Intel SDM vol. 3A §3.4.5, figure 3-8.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_linux() {
        // Linux's own boot GDT: __BOOT_CS and __BOOT_DS with the accessed bit.
        assert_eq!(descriptor(&code_64(0x10)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code_32(0x10)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data(0x18)), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task(0x20)), 0x0000_8b00_0000_0067);
    }
}
