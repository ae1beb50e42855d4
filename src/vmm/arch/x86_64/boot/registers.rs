//! The state in which a boot protocol wants the first vCPU.

use super::Error;
use crate::arch::x86_64::address_map::GDT;
use crate::memory::GuestMemory;
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

/// What a boot protocol wants the first vCPU to begin with, as plain data. All other registers are as after reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootState {
    /// RIP and what the protocol passes in registers; the others are zero.
    pub registers: Registers,
    /// Control registers, and EFER.
    pub cr0: u64,
    /// Physical address of the page tables, if there are any.
    pub cr3: u64,
    /// Its bits.
    pub cr4: u64,
    /// Its bits.
    pub efer: u64,
    /// CS.
    pub code: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// TR.
    pub task: Segment,
    /// Where the descriptor table is. The one for interrupts is empty.
    pub gdt: GuestAddress,
    /// Its size in bytes.
    pub gdt_bytes: u16,
}

/// General registers that a boot protocol gives a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The first instruction.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// What the protocol passes in it.
    pub rbx: u64,
    /// What the protocol passes in it.
    pub rsi: u64,
    /// Top of the stack.
    pub rsp: u64,
    /// Frame of the stack.
    pub rbp: u64,
}

/// A segment register with what its descriptor says (Intel SDM vol. 3A §3.4.5). Segments here begin at 0 and are
/// present, in ring 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which descriptor.
    pub selector: u16,
    /// The last offset, in bytes.
    pub limit: u32,
    /// Its type: four bits.
    pub kind: u8,
    /// For code or data, not for the system.
    pub is_for_code_or_data: bool,
    /// The limit counts pages.
    pub granular: bool,
    /// 32-bit operands.
    pub default_32: bool,
    /// Code in long mode.
    pub long: bool,
}

/// A flat segment, 0 to 4 GiB, ring 0 (Intel SDM vol. 3A §3.4.5).
fn flat(selector: u16, kind: u8) -> Segment {
    Segment {
        selector,
        limit: 0xffff_ffff,
        kind,
        is_for_code_or_data: true,
        granular: true,
        default_32: false,
        long: false,
    }
}

/// Execute and read, accessed.
pub(super) fn code_32(selector: u16) -> Segment {
    Segment {
        default_32: true,
        ..flat(selector, 0xb)
    }
}

/// Execute and read, accessed, long mode.
pub(super) fn code_64(selector: u16) -> Segment {
    Segment {
        long: true,
        ..flat(selector, 0xb)
    }
}

/// Read and write, accessed.
pub(super) fn data(selector: u16) -> Segment {
    Segment {
        default_32: true,
        ..flat(selector, 0x3)
    }
}

/// A busy task state segment at 0, of the least size.
pub(super) fn task(selector: u16) -> Segment {
    Segment {
        limit: 0x67,
        granular: false,
        is_for_code_or_data: false,
        ..flat(selector, 0xb)
    }
}

/// Writes descriptors for the given segments at their selectors; returns the size of the table.
pub(super) fn write_gdt(ram: &GuestMemory, segments: &[Segment]) -> Result<u16, Error> {
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
            .map_err(Error::memory)?;
    }
    Ok((entries * 8) as u16)
}

/// Intel SDM vol. 3A §3.4.5, figure 3-8.
fn descriptor(segment: &Segment) -> u64 {
    const PRESENT: u64 = 1 << 7;
    let limit = u64::from(match segment.granular {
        true => segment.limit >> 12,
        false => segment.limit,
    });
    let access = u64::from(segment.kind) | u64::from(segment.is_for_code_or_data) << 4 | PRESENT;
    let flags = u64::from(segment.long) << 1
        | u64::from(segment.default_32) << 2
        | u64::from(segment.granular) << 3;
    (limit & 0xffff) | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
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
