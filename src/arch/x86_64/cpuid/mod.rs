//! What CPUID tells the guest: KVM's offer, less what is masked, with this VM's topology.

mod topology;

use crate::config::{CpuMask, VcpuCount};
use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf 1 ECX (Intel SDM vol. 2A, CPUID).
const MONITOR: u32 = 1 << 3;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// The hypervisor leaves (Linux Documentation/virt/kvm/x86/cpuid.rst).
const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// TSC and bus frequency in kHz; VMware's leaf, which Linux and others read under KVM too.
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// The local APIC timer of KVM counts at 1 GHz (KVM_APIC_BUS_CYCLE_NS is 1).
const APIC_BUS_KHZ: u32 = 1_000_000;
/// Address widths.
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// What a processor without the address-size leaf has (Intel SDM vol. 3A §4.1.4).
const DEFAULT_PHYSICAL_BITS: u8 = 36;

/// What the CPUID of all vCPUs of a VM has in common.
#[derive(Clone, Debug)]
pub struct CpuidPlan {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u8,
}

/// What CPUID depends on apart from KVM's offer.
#[derive(Clone, Copy, Debug)]
pub struct CpuidFacts<'a> {
    /// vCPUs of the VM: one package, a core each.
    pub vcpus: VcpuCount,
    /// Bits to hide.
    pub mask: &'a CpuMask,
    /// TSC frequency of the guest, where KVM tells it.
    pub tsc_khz: Option<u32>,
    /// KVM_CAP_TSC_DEADLINE_TIMER, which KVM_GET_SUPPORTED_CPUID does not report.
    pub tsc_deadline: bool,
}

impl CpuidPlan {
    /// Starts from what KVM_GET_SUPPORTED_CPUID offers.
    pub fn new(supported: &CpuId, facts: CpuidFacts) -> Self {
        let mut plan = Self {
            entries: supported.as_slice().to_vec(),
            vcpus: facts.vcpus.get(),
        };
        plan.set_features(facts.tsc_deadline);
        if let Some(khz) = facts.tsc_khz {
            plan.add_timing(khz);
        }
        topology::describe(&mut plan.entries, plan.vcpus);
        // Last, so that what the user hides stays hidden.
        plan.apply_mask(facts.mask);
        plan
    }

    /// The table for one vCPU, whose APIC id is its number.
    ///
    /// # Errors
    /// When there are more leaves than KVM takes (a bug).
    pub fn for_vcpu(&self, vcpu: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
        let mut entries = self.entries.clone();
        topology::identify(&mut entries, vcpu);
        CpuId::from_entries(&entries)
    }

    /// Width of guest physical addresses, in bits.
    pub fn physical_bits(&self) -> u8 {
        find(&self.entries, ADDRESS_SIZES, 0)
            .map(|entry| entry.eax as u8)
            .filter(|bits| *bits != 0)
            .unwrap_or(DEFAULT_PHYSICAL_BITS)
    }

    fn set_features(&mut self, tsc_deadline: bool) {
        if let Some(entry) = find_mut(&mut self.entries, 1, 0) {
            entry.ecx |= HYPERVISOR | X2APIC;
            entry.ecx &= !MONITOR;
            if tsc_deadline {
                entry.ecx |= TSC_DEADLINE;
            }
        }
    }

    fn add_timing(&mut self, tsc_khz: u32) {
        let Some(base) = find_mut(&mut self.entries, HYPERVISOR_BASE, 0) else {
            return;
        };
        base.eax = base.eax.max(HYPERVISOR_TIMING);
        self.entries
            .retain(|entry| entry.function != HYPERVISOR_TIMING);
        self.entries.push(kvm_cpuid_entry2 {
            function: HYPERVISOR_TIMING,
            eax: tsc_khz,
            ebx: APIC_BUS_KHZ,
            ..Default::default()
        });
    }

    fn apply_mask(&mut self, mask: &CpuMask) {
        use crate::config::Register;
        for bit in mask.bits() {
            if let Some(entry) = find_mut(&mut self.entries, bit.leaf, 0) {
                let register = match bit.register {
                    Register::Ebx => &mut entry.ebx,
                    Register::Ecx => &mut entry.ecx,
                    Register::Edx => &mut entry.edx,
                };
                *register &= !(1 << bit.bit);
            }
        }
    }
}

fn find(entries: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32) -> Option<&kvm_cpuid_entry2> {
    entries
        .iter()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
}

fn find_mut(
    entries: &mut [kvm_cpuid_entry2],
    leaf: u32,
    subleaf: u32,
) -> Option<&mut kvm_cpuid_entry2> {
    entries
        .iter_mut()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
}

/// An entry that answers one subleaf only.
fn indexed(leaf: u32, subleaf: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: leaf,
        index: subleaf,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, eax: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax,
            ecx,
            ..Default::default()
        }
    }

    fn offer() -> CpuId {
        CpuId::from_entries(&[
            leaf(0, 0x1f, 0),
            leaf(1, 0, MONITOR | 1 << 13),
            indexed(0xb, 0),
            leaf(HYPERVISOR_BASE, 0x4000_0001, 0),
            leaf(ADDRESS_SIZES, 48, 0),
        ])
        .unwrap()
    }

    fn plan(vcpus: u64, mask: &str) -> CpuidPlan {
        let mask = match mask {
            "" => CpuMask::default(),
            names => names.parse().unwrap(),
        };
        let facts = CpuidFacts {
            vcpus: vcpus.try_into().unwrap(),
            mask: &mask,
            tsc_khz: Some(2_000_000),
            tsc_deadline: true,
        };
        CpuidPlan::new(&offer(), facts)
    }

    #[test]
    fn features_are_set_and_masked() {
        let features = find(&plan(1, "").entries, 1, 0).unwrap().ecx;
        assert_eq!(
            features & (HYPERVISOR | X2APIC | TSC_DEADLINE),
            HYPERVISOR | X2APIC | TSC_DEADLINE
        );
        assert_eq!(features & MONITOR, 0);
        assert_ne!(features & 1 << 13, 0);
        let masked = find(&plan(1, "cx16,tsc_deadline").entries, 1, 0)
            .unwrap()
            .ecx;
        assert_eq!(masked & (1 << 13 | TSC_DEADLINE), 0);
    }

    #[test]
    fn timing_leaf_gives_kilohertz() {
        let plan = plan(1, "");
        assert_eq!(
            find(&plan.entries, HYPERVISOR_BASE, 0).unwrap().eax,
            HYPERVISOR_TIMING
        );
        let timing = find(&plan.entries, HYPERVISOR_TIMING, 0).unwrap();
        assert_eq!((timing.eax, timing.ebx), (2_000_000, APIC_BUS_KHZ));
        assert_eq!(plan.physical_bits(), 48);
    }

    #[test]
    fn each_vcpu_has_its_own_id() {
        let plan = plan(3, "");
        for id in 0..3 {
            let cpuid = plan.for_vcpu(id).unwrap();
            let entries = cpuid.as_slice();
            assert_eq!(find(entries, 1, 0).unwrap().ebx >> 24, u32::from(id));
            assert_eq!(find(entries, 0xb, 0).unwrap().edx, u32::from(id));
            let cores = find(entries, 0xb, 1).unwrap();
            assert_eq!((cores.eax, cores.ebx, cores.edx), (2, 3, u32::from(id)));
        }
    }
}
