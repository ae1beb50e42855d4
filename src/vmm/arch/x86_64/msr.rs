//! Model-specific registers that firmware would have set.

/// Intel SDM vol. 4, IA32_TIME_STAMP_COUNTER.
pub const TSC: u32 = 0x10;
/// Intel SDM vol. 4, IA32_FEATURE_CONTROL: what firmware decides about VT-x.
const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// Not to be changed; VT-x works outside of trusted execution.
const LOCKED_WITH_VMX: u64 = 1 | 1 << 2;
/// Intel SDM vol. 4, IA32_MISC_ENABLE.
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Fast-string operations are on.
const FAST_STRINGS: u64 = 1;
/// Intel SDM vol. 3A §12.11.2.1, IA32_MTRR_DEF_TYPE.
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, default type write-back.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// A register and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// Its contents.
    pub value: u64,
}

/// The registers to set; all others are right after a KVM reset.
///
/// `misc_enable` is what that reset has left in [`IA32_MISC_ENABLE`]: bits that say what is not there (branch traces)
/// stay. `vmx`: the guest sees VT-x, which Linux uses only where this says that it may be used.
pub fn boot_msrs(misc_enable: u64, vmx: bool) -> Vec<Msr> {
    let msr = |index, value| Msr { index, value };
    let mut msrs = vec![
        msr(IA32_MISC_ENABLE, misc_enable | FAST_STRINGS),
        msr(IA32_MTRR_DEF_TYPE, MTRR_ON_WRITE_BACK),
    ];
    if vmx {
        msrs.push(msr(IA32_FEATURE_CONTROL, LOCKED_WITH_VMX));
    }
    msrs
}

/// What the manuals call a register that kvmlet touches.
pub fn name(index: u32) -> &'static str {
    match index {
        TSC => "IA32_TIME_STAMP_COUNTER",
        IA32_FEATURE_CONTROL => "IA32_FEATURE_CONTROL",
        IA32_MISC_ENABLE => "IA32_MISC_ENABLE",
        IA32_MTRR_DEF_TYPE => "IA32_MTRR_DEF_TYPE",
        _ => "no name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        // No branch traces, no sampling by memory: KVM says so after a reset.
        let reset = 1 << 11 | 1 << 12;
        for (vmx, count) in [(false, 2), (true, 3)] {
            let msrs = boot_msrs(reset, vmx);
            assert_eq!(msrs.len(), count);
            assert_eq!((msrs[0].index, msrs[0].value), (0x1a0, reset | 1));
            for msr in msrs {
                assert!(name(msr.index).starts_with("IA32_"));
            }
        }
    }
}
