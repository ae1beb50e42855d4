//! What a guest is not shown although the processor, and KVM with it, may have it.
//!
//! KVM_GET_SUPPORTED_CPUID offers all that works, and with older kernels the host's own answer where it has none. A
//! host of many tenants shows less: no extension that only serves to attack KVM or to measure neighbours unless it was
//! asked for, and nothing that tells of the host's place, power, firmware or other guests.

use super::Leaf;
use crate::config::Register::{self, Eax, Ebx, Ecx, Edx};

/// Bits of one register of a leaf's subleaf 0 (Intel SDM vol. 2A, CPUID; AMD APM vol. 3 app. E).
struct Bits(u32, Register, u32);

/// Something to withhold: bits, and leaves that say nothing then.
pub(super) struct Withheld {
    bits: &'static [Bits],
    leaves: &'static [u32],
}

/// Turns bit numbers into a mask.
const fn mask<const N: usize>(numbers: [u32; N]) -> u32 {
    let (mut mask, mut at) = (0, 0);
    while at < N {
        mask |= 1 << numbers[at];
        at += 1;
    }
    mask
}

/// VT-x (`vmx`), and SVM (`svm`) with the leaf of its features.
pub(super) const NESTED: Withheld = Withheld {
    bits: &[Bits(1, Ecx, mask([5])), Bits(0x8000_0001, Ecx, mask([2]))],
    leaves: &[0x8000_000a],
};

/// Counters, and what records branches or samples: `dtes64`, `ds_cpl`, `pdcm`, `dts`; `intel_pt`; `arch_lbr`; `ibs`,
/// `perfctr_core`, `perfctr_nb`, `ptsc`, `perfctr_llc`.
pub(super) const PMU: Withheld = Withheld {
    bits: &[
        Bits(1, Ecx, mask([2, 4, 15])),
        Bits(1, Edx, mask([21])),
        Bits(7, Ebx, mask([25])),
        Bits(7, Edx, mask([19])),
        Bits(0x8000_0001, Ecx, mask([10, 23, 24, 27, 28])),
    ],
    // Counters, Intel PT, architectural LBR, counters again; IBS, counters of AMD, version 2.
    leaves: &[0xa, 0x14, 0x1c, 0x23, 0x8000_001b, 0x8000_0022],
};

pub(super) const ALWAYS: Withheld = Withheld {
    bits: &[
        // Waiting that keeps the CPU from everybody else (`monitor`); trusted execution, power and thermal control,
        // silicon debugging, task priorities on the bus, direct cache access.
        Bits(1, Ecx, mask([3, 6, 7, 8, 11, 14, 18])),
        // The processor's serial number, thermal control and alarm, pending-break.
        Bits(1, Edx, mask([18, 22, 29, 31])),
        // Thermal and power: all but a timer that never stops.
        Bits(6, Eax, !mask([2])),
        Bits(6, Ebx, !0),
        Bits(6, Ecx, !0),
        Bits(6, Edx, !0),
        // SGX, of whose memory guests get none; TSX, which is taken away by microcode on one host and not on the next,
        // and is best at attacks; monitoring and allocation of caches.
        Bits(7, Ebx, mask([2, 4, 11, 12, 15])),
        // Memory encryption, key locker, shared work queues of devices, SGX's launch control.
        Bits(7, Ecx, mask([13, 23, 29, 30])),
        // What the host's microcode has done to TSX; TSX; which kind of core this is; platform configuration.
        Bits(7, Edx, mask([11, 13, 15, 16, 18])),
        // `skinit`, the watchdog, lightweight profiling, the node's number, waiting again (`mwaitx`).
        Bits(0x8000_0001, Ecx, mask([12, 13, 15, 19, 29])),
        // Power management: all but a TSC that never stops.
        Bits(0x8000_0007, Eax, !0),
        Bits(0x8000_0007, Ebx, !0),
        Bits(0x8000_0007, Ecx, !0),
        Bits(0x8000_0007, Edx, !mask([8])),
    ],
    // The serial number, MONITOR, direct cache access, monitoring and allocation of caches, SGX, key locker, the
    // kind of core, platform configuration; lightweight profiling, encryption with the number of encrypted guests,
    // quality of service, the host's topology in a fourth dialect.
    leaves: &[
        3,
        5,
        9,
        0xf,
        0x10,
        0x12,
        0x19,
        0x1a,
        0x1b,
        0x8000_001c,
        0x8000_001f,
        0x8000_0020,
        0x8000_0026,
    ],
};

impl Withheld {
    /// Takes it out of what a guest is shown. A leaf that is gone reads as zeros.
    pub(super) fn take_from(&self, entries: &mut Vec<Leaf>) {
        entries.retain(|entry| !self.leaves.contains(&entry.function));
        for Bits(leaf, register, bits) in self.bits {
            if let Some(entry) = super::find_mut(entries, *leaf, 0) {
                *super::register(entry, *register) &= !bits;
            }
        }
    }
}
