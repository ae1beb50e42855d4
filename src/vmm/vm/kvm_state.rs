//! The plain data of `arch` as KVM's structures.

use super::error::Error;
use crate::arch::x86_64::boot::{BootState, Registers, Segment};
use crate::arch::x86_64::cpuid::Leaf;
use crate::arch::x86_64::lapic::LOCAL_PINS;
use crate::arch::x86_64::msr::Msr;
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, kvm_cpuid_entry2, kvm_lapic_state, kvm_msr_entry,
    kvm_regs, kvm_segment, kvm_sregs,
};

/// What KVM offers.
pub(super) fn leaves(offer: &CpuId) -> Vec<Leaf> {
    let leaf = |entry: &kvm_cpuid_entry2| Leaf {
        function: entry.function,
        index: entry.index,
        is_indexed: entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0,
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
    };
    offer.as_slice().iter().map(leaf).collect()
}

/// What a vCPU is to answer.
pub(super) fn cpuid(leaves: &[Leaf]) -> Result<CpuId, Error> {
    let entry = |leaf: &Leaf| kvm_cpuid_entry2 {
        function: leaf.function,
        index: leaf.index,
        flags: match leaf.is_indexed {
            true => KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            false => 0,
        },
        eax: leaf.eax,
        ebx: leaf.ebx,
        ecx: leaf.ecx,
        edx: leaf.edx,
        padding: [0; 3],
    };
    CpuId::from_entries(&leaves.iter().map(entry).collect::<Vec<_>>()).map_err(too_long)
}

/// Model-specific registers, to set or to be filled in.
pub(super) fn msrs(list: &[Msr]) -> Result<Msrs, Error> {
    let entry = |msr: &Msr| kvm_msr_entry {
        index: msr.index,
        data: msr.value,
        ..Default::default()
    };
    Msrs::from_entries(&list.iter().map(entry).collect::<Vec<_>>()).map_err(too_long)
}

fn too_long(error: impl std::fmt::Debug) -> Error {
    Error::List(format!("{error:?}"))
}

/// Wires the local pins of an APIC after reset.
pub(super) fn wire_local_pins(apic: &mut kvm_lapic_state) {
    for pin in LOCAL_PINS {
        let register = &mut apic.regs[pin.offset..pin.offset + 4];
        let old = std::array::from_fn(|place| register[place] as u8);
        let new = pin.wired(u32::from_le_bytes(old)).to_le_bytes();
        for (byte, new) in register.iter_mut().zip(new) {
            *byte = new as _;
        }
    }
}

/// General registers; those that are not named are zero.
pub(super) fn general(registers: &Registers) -> kvm_regs {
    let Registers {
        rip,
        rflags,
        rbx,
        rsi,
        rsp,
        rbp,
    } = *registers;
    kvm_regs {
        rip,
        rflags,
        rbx,
        rsi,
        rsp,
        rbp,
        ..Default::default()
    }
}

/// Changes the special registers of a vCPU after reset to what a boot protocol wants.
pub(super) fn apply(state: &BootState, special: &mut kvm_sregs) {
    special.cr0 = state.cr0;
    special.cr3 = state.cr3;
    special.cr4 = state.cr4;
    special.efer = state.efer;
    special.cs = segment(&state.code);
    special.tr = segment(&state.task);
    for data in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *data = segment(&state.data);
    }
    special.gdt.base = state.gdt.0;
    special.gdt.limit = state.gdt_bytes - 1;
    special.idt.base = 0;
    special.idt.limit = 0;
}

fn segment(segment: &Segment) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind,
        present: 1,
        dpl: 0,
        db: segment.default_32.into(),
        s: segment.is_for_code_or_data.into(),
        l: segment.long.into(),
        g: segment.granular.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_back_as_they_went() {
        let entry = |function: u32, flags: u32| kvm_cpuid_entry2 {
            function,
            index: 2,
            flags,
            eax: 3,
            ebx: 4,
            ecx: 5,
            edx: 6,
            padding: [0; 3],
        };
        let entries = [entry(4, KVM_CPUID_FLAG_SIGNIFCANT_INDEX), entry(1, 0)];
        let offer = CpuId::from_entries(&entries).unwrap();
        assert_eq!(cpuid(&leaves(&offer)).unwrap().as_slice(), entries);
    }

    #[test]
    fn only_the_mode_of_a_local_pin_changes() {
        let mut apic = kvm_lapic_state::default();
        apic.regs[0x352] = 1; // masked
        wire_local_pins(&mut apic);
        assert_eq!(apic.regs[0x350..0x354], [0, 7, 1, 0]);
        assert_eq!(apic.regs[0x360..0x364], [0, 4, 0, 0]);
    }
}
