//! What CPUID tells the guest: KVM's offer, less what is withheld or masked, with this VM's topology.

mod compare;
mod topology;
mod withheld;
mod xsave;

pub use compare::missing;
pub use xsave::xsave_area;

use crate::config::{CpuMask, CpuidChange, Register, VcpuCount};

/// Leaf 1 ECX (Intel SDM vol. 2A, CPUID).
const VMX: u32 = 1 << 5;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// The hypervisor leaves (Linux Documentation/virt/kvm/x86/cpuid.rst).
const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// TSC and bus frequency in kHz; VMware's leaf, which Linux and others read under KVM too.
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
/// The local APIC timer of KVM counts at 1 GHz (KVM_APIC_BUS_CYCLE_NS is 1).
const APIC_BUS_KHZ: u32 = 1_000_000;
/// AMD's features; EDX repeats bits of leaf 1 EDX (AMD APM vol. 3 §E.4.2).
const AMD_FEATURES: u32 = 0x8000_0001;
const AMD_REPEATED: u32 = 0x0183_f3ff;
const SVM: u32 = 1 << 2;
/// Counters: EAX bits 7:0 are their version, 0 for none.
const COUNTERS: u32 = 0xa;
const AMD_MORE_COUNTERS: u32 = 1 << 23;
/// Address widths.
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// What a processor without the address-size leaf has (Intel SDM vol. 3A §4.1.4).
const DEFAULT_PHYSICAL_BITS: u8 = 36;

/// What the processor answers to CPUID with this number in EAX, and for some in ECX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX of the question.
    pub function: u32,
    /// ECX of the question, where that counts.
    pub index: u32,
    /// Whether it does.
    pub is_indexed: bool,
    /// The answer.
    pub eax: u32,
    /// The answer.
    pub ebx: u32,
    /// The answer.
    pub ecx: u32,
    /// The answer.
    pub edx: u32,
}

/// What the CPUID of all vCPUs of a VM has in common.
#[derive(Clone, Debug)]
pub struct CpuidPlan {
    entries: Vec<Leaf>,
    vcpus: u8,
    changes: Vec<CpuidChange>,
}

/// What CPUID depends on apart from KVM's offer.
#[derive(Clone, Copy, Debug)]
pub struct CpuidFacts<'a> {
    /// vCPUs of the VM: one package, a core each.
    pub vcpus: VcpuCount,
    /// Bits to hide.
    pub mask: &'a CpuMask,
    /// Whether VT-x or SVM is shown.
    pub nested: bool,
    /// Whether performance counters are shown.
    pub pmu: bool,
    /// TSC frequency of the guest, where KVM tells it.
    pub tsc_khz: Option<u32>,
    /// KVM_CAP_TSC_DEADLINE_TIMER, which KVM_GET_SUPPORTED_CPUID does not report.
    pub tsc_deadline: bool,
}

impl CpuidPlan {
    /// Starts from what KVM_GET_SUPPORTED_CPUID offers.
    pub fn new(supported: &[Leaf], facts: CpuidFacts) -> Self {
        let mut plan = Self {
            entries: supported.to_vec(),
            vcpus: facts.vcpus.get(),
            changes: Vec::new(),
        };
        withheld::ALWAYS.take_from(&mut plan.entries);
        if !facts.nested {
            withheld::NESTED.take_from(&mut plan.entries);
        }
        if !facts.pmu {
            withheld::PMU.take_from(&mut plan.entries);
        }
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
    pub fn for_vcpu(&self, vcpu: u8) -> Vec<Leaf> {
        let mut entries = self.entries.clone();
        topology::identify(&mut entries, vcpu);
        // Once more: they hold for what is a vCPU's own, too.
        for change in &self.changes {
            change_leaf(&mut entries, change);
        }
        entries
    }

    /// Has bits be other than KVM and this VM have them, one change after another.
    ///
    /// # Errors
    /// The first change of a leaf that is not there. One that only clears bits is done: such a leaf reads as zeros.
    pub fn change(&mut self, changes: &[CpuidChange]) -> Result<(), CpuidChange> {
        for change in changes {
            let is_done = change_leaf(&mut self.entries, change) || change.bits.of(0) == 0;
            is_done.then_some(()).ok_or(*change)?;
        }
        self.changes.extend_from_slice(changes);
        Ok(())
    }

    /// How many vCPUs it is for.
    pub fn vcpus(&self) -> u8 {
        self.vcpus
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
        self.entries.push(Leaf {
            function: HYPERVISOR_TIMING,
            eax: tsc_khz,
            ebx: APIC_BUS_KHZ,
            ..Default::default()
        });
    }

    fn apply_mask(&mut self, mask: &CpuMask) {
        for bit in mask.bits() {
            if let Some(entry) = find_mut(&mut self.entries, bit.leaf, bit.subleaf) {
                *register(entry, bit.register) &= !(1 << bit.bit);
            }
            let repeated = bit.leaf == 1 && bit.register == Register::Edx;
            if repeated && let Some(entry) = find_mut(&mut self.entries, AMD_FEATURES, 0) {
                entry.edx &= !(1 << bit.bit & AMD_REPEATED);
            }
        }
    }

    /// Does the guest see VT-x? Then it has the registers that control it.
    pub fn has_vmx(&self) -> bool {
        find(&self.entries, 1, 0).is_some_and(|entry| entry.ecx & VMX != 0)
    }
}

/// Does KVM offer VT-x or SVM to guests?
pub fn offers_nested(offer: &[Leaf]) -> bool {
    let features = |leaf| find(offer, leaf, 0).map_or(0, |entry| entry.ecx);
    features(1) & VMX != 0 || features(AMD_FEATURES) & SVM != 0
}

/// Does KVM's offer tell of performance counters? AMD's first four have no bit in CPUID.
pub fn offers_counters(offer: &[Leaf]) -> bool {
    let entry = |leaf| find(offer, leaf, 0);
    entry(COUNTERS).is_some_and(|entry| entry.eax & 0xff != 0)
        || entry(AMD_FEATURES).is_some_and(|entry| entry.ecx & AMD_MORE_COUNTERS != 0)
}

/// Is there such a leaf?
fn change_leaf(entries: &mut [Leaf], change: &CpuidChange) -> bool {
    let found = find_mut(entries, change.leaf, change.subleaf);
    found.is_some_and(|entry| {
        let register = register(entry, change.register);
        *register = change.bits.of((*register).into()) as u32;
        true
    })
}

fn register(entry: &mut Leaf, register: Register) -> &mut u32 {
    match register {
        Register::Eax => &mut entry.eax,
        Register::Ebx => &mut entry.ebx,
        Register::Ecx => &mut entry.ecx,
        Register::Edx => &mut entry.edx,
    }
}

fn find(entries: &[Leaf], leaf: u32, subleaf: u32) -> Option<&Leaf> {
    entries
        .iter()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
}

fn find_mut(entries: &mut [Leaf], leaf: u32, subleaf: u32) -> Option<&mut Leaf> {
    entries
        .iter_mut()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
}

/// An entry that answers one subleaf only.
fn indexed(leaf: u32, subleaf: u32) -> Leaf {
    Leaf {
        function: leaf,
        index: subleaf,
        is_indexed: true,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
