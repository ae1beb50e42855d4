//! The plain data of `arch` as KVM's structures.

use super::error::Error;
use crate::arch::x86_64::boot::{BootState, Registers, Segment};
use crate::arch::x86_64::cpuid::Leaf;
use crate::arch::x86_64::msr::Msr;
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs,
    kvm_segment, kvm_sregs,
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

/// The special registers of the first vCPU: what a boot protocol wants, and the rest as a reset leaves it, which is known
/// without asking KVM.
pub(super) fn special(state: &BootState) -> kvm_sregs {
    let data = segment(&state.data);
    let mut special = kvm_sregs {
        cr0: state.cr0,
        cr3: state.cr3,
        cr4: state.cr4,
        efer: state.efer,
        cs: segment(&state.code),
        tr: segment(&state.task),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ..after_reset()
    };
    special.gdt.base = state.gdt.0;
    special.gdt.limit = state.gdt_bytes - 1;
    special
}

/// What is not zero after a reset of the first processor, of what no boot protocol has a wish for: LDTR (Intel SDM vol. 3A
/// table 10-1), and where the local APIC is, enabled (§11.4.4).
fn after_reset() -> kvm_sregs {
    let empty = kvm_segment {
        limit: 0xffff,
        type_: 2,
        present: 1,
        ..Default::default()
    };
    kvm_sregs {
        ldt: empty,
        apic_base: 0xfee0_0000 | 1 << 11 | 1 << 8,
        ..Default::default()
    }
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
    /// Not where there is no KVM: then there is nobody to ask.
    #[test]
    fn what_a_reset_leaves_is_what_kvm_says() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            return;
        };
        let vm = kvm.create_vm().unwrap();
        let split = kvm_bindings::kvm_enable_cap {
            cap: kvm_bindings::KVM_CAP_SPLIT_IRQCHIP,
            args: [24, 0, 0, 0],
            ..Default::default()
        };
        vm.enable_cap(&split).unwrap();
        let reset = vm.create_vcpu(0).unwrap().get_sregs().unwrap();
        let ours = after_reset();
        assert_eq!(
            (ours.ldt, ours.apic_base, ours.cr2, ours.cr8),
            (reset.ldt, reset.apic_base, reset.cr2, reset.cr8)
        );
        assert_eq!(ours.interrupt_bitmap, reset.interrupt_bitmap);
    }
}
