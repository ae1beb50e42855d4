//! Model-specific registers that firmware would have set.

use kvm_bindings::{Msrs, kvm_msr_entry};

/// Intel SDM vol. 4, IA32_MISC_ENABLE.
const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Fast-string operations are on.
const FAST_STRINGS: u64 = 1;
/// Intel SDM vol. 3A §12.11.2.1, IA32_MTRR_DEF_TYPE.
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, default type write-back.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// The registers to set; all others are right after a KVM reset.
///
/// # Errors
/// Never in practice: the list is far below KVM's limit.
pub fn boot_msrs() -> Result<Msrs, vmm_sys_util::fam::Error> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    Msrs::from_entries(&[
        entry(IA32_MISC_ENABLE, FAST_STRINGS),
        entry(IA32_MTRR_DEF_TYPE, MTRR_ON_WRITE_BACK),
    ])
}
