//! One package with a core for each vCPU and no hyperthreads, told in every dialect of CPUID.

use super::{Leaf, find, find_mut, indexed};
use std::ops::Range;

const FEATURES: u32 = 1;
/// Leaf 1 EBX: how many ids of logical processors the package has, and this one's id.
const PACKAGE_IDS: Field = Field::bits(16..24);
const APIC_ID: Field = Field::bits(24..32);
/// Leaf 1 EDX: the logical-processor count in EBX is valid.
const HTT: u32 = 1 << 28;
/// Intel deterministic cache parameters.
const CACHES: u32 = 4;
/// EAX of a cache, with AMD as well: its level, and how many ids share it, less one; with Intel also how many cores the
/// package has, less one.
const CACHE_LEVEL: Field = Field::bits(5..8);
const CACHE_SHARERS: Field = Field::bits(14..26);
const PACKAGE_CORES: Field = Field::bits(26..32);
/// Extended topology, version 1 and 2 (Intel SDM vol. 2A; AMD APM vol. 3 §E.3.9).
const EXTENDED_TOPOLOGY: [u32; 2] = [0xb, 0x1f];
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;
/// AMD: extended features, core count, caches, extended APIC id (AMD APM vol. 3 §E.4).
const AMD_FEATURES: u32 = 0x8000_0001;
const AMD_CMP_LEGACY: u32 = 1 << 1;
const AMD_TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
const AMD_CORES: u32 = 0x8000_0008;
/// ECX: cores of the package, less one, and how many bits of an APIC id tell them apart.
const AMD_CORE_COUNT: Field = Field::bits(0..8);
const AMD_CORE_ID_BITS: Field = Field::bits(12..16);
const AMD_CACHES: u32 = 0x8000_001d;
const AMD_APIC_ID: u32 = 0x8000_001e;

/// Some bits of a register that are a number.
#[derive(Clone, Copy)]
struct Field {
    shift: u32,
    most: u32,
}

impl Field {
    const fn bits(bits: Range<u32>) -> Self {
        Self {
            shift: bits.start,
            most: u32::MAX >> (u32::BITS - (bits.end - bits.start)),
        }
    }

    fn get(self, register: u32) -> u32 {
        register >> self.shift & self.most
    }

    /// A number that does not fit is the largest that does.
    fn set(self, register: &mut u32, number: u32) {
        *register &= !(self.most << self.shift);
        *register |= number.min(self.most) << self.shift;
    }
}

/// Bits that an APIC id needs so that each of `vcpus` has its own.
fn id_bits(vcpus: u8) -> u32 {
    u8::BITS - (vcpus - 1).leading_zeros()
}

/// Writes what all vCPUs share.
pub(super) fn describe(entries: &mut Vec<Leaf>, vcpus: u8) {
    let count = u32::from(vcpus);
    if let Some(entry) = find_mut(entries, FEATURES, 0) {
        PACKAGE_IDS.set(&mut entry.ebx, count);
        set_bits(&mut entry.edx, HTT, vcpus > 1);
    }
    for entry in entries.iter_mut().filter(|entry| entry.function == CACHES) {
        share_cache(&mut entry.eax, count);
        PACKAGE_CORES.set(&mut entry.eax, count - 1);
    }
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.function == AMD_CACHES)
    {
        share_cache(&mut entry.eax, count);
    }
    describe_amd(entries, vcpus);
    describe_levels(entries, vcpus);
}

/// Caches of level 3 and up serve all cores, the others one.
fn share_cache(eax: &mut u32, vcpus: u32) {
    let sharers = if CACHE_LEVEL.get(*eax) >= 3 { vcpus } else { 1 };
    CACHE_SHARERS.set(eax, sharers - 1);
}

fn describe_amd(entries: &mut [Leaf], vcpus: u8) {
    if let Some(entry) = find_mut(entries, AMD_CORES, 0) {
        AMD_CORE_COUNT.set(&mut entry.ecx, u32::from(vcpus - 1));
        AMD_CORE_ID_BITS.set(&mut entry.ecx, id_bits(vcpus));
    }
    let extended = find(entries, AMD_APIC_ID, 0).is_some();
    if let Some(entry) = find_mut(entries, AMD_FEATURES, 0) {
        if entry.ecx & AMD_CMP_LEGACY != 0 || extended {
            set_bits(&mut entry.ecx, AMD_CMP_LEGACY, vcpus > 1);
        }
        if extended {
            entry.ecx |= AMD_TOPOLOGY_EXTENSIONS;
        }
    }
}

fn describe_levels(entries: &mut Vec<Leaf>, vcpus: u8) {
    for leaf in EXTENDED_TOPOLOGY {
        let offered = entries.iter().any(|entry| entry.function == leaf);
        entries.retain(|entry| entry.function != leaf);
        if !offered {
            continue;
        }
        let mut level = |subleaf: u32, shift: u32, count: u32, kind: u32| {
            entries.push(Leaf {
                eax: shift,
                ebx: count,
                ecx: kind | subleaf,
                ..indexed(leaf, subleaf)
            });
        };
        level(0, 0, 1, LEVEL_THREAD);
        level(1, id_bits(vcpus), u32::from(vcpus), LEVEL_CORE);
        level(2, 0, 0, 0);
    }
}

/// Writes what is one vCPU's own: its APIC id.
pub(super) fn identify(entries: &mut [Leaf], vcpu: u8) {
    let id = u32::from(vcpu);
    for entry in entries {
        match entry.function {
            FEATURES => APIC_ID.set(&mut entry.ebx, id),
            leaf if EXTENDED_TOPOLOGY.contains(&leaf) => entry.edx = id,
            AMD_APIC_ID => {
                entry.eax = id;
                entry.ebx = id & 0xff; // core id, one thread in it
                entry.ecx = 0; // node 0 of one
            }
            _ => {}
        }
    }
}

fn set_bits(register: &mut u32, bits: u32, on: bool) {
    if on {
        *register |= bits
    } else {
        *register &= !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_need_as_many_bits_as_the_largest() {
        for (vcpus, bits) in [
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (32, 5),
            (33, 6),
            (254, 8),
        ] {
            assert_eq!(id_bits(vcpus), bits, "{vcpus}");
        }
    }

    #[test]
    fn only_the_last_level_cache_is_shared() {
        let cache = |level: u32| Leaf {
            eax: 0xffff_c000 | level << 5,
            ..indexed(CACHES, level)
        };
        let mut entries = vec![cache(1), cache(2), cache(3)];
        describe(&mut entries, 4);
        let sharers: Vec<u32> = entries.iter().map(|e| (e.eax >> 14 & 0xfff) + 1).collect();
        assert_eq!(sharers, [1, 1, 4]);
        assert!(entries.iter().all(|e| (e.eax >> 26) + 1 == 4));
    }

    #[test]
    fn amd_leaves_agree() {
        let amd = |function| Leaf {
            function,
            ..Default::default()
        };
        let mut entries = vec![amd(AMD_FEATURES), amd(AMD_CORES), amd(AMD_APIC_ID)];
        describe(&mut entries, 6);
        identify(&mut entries, 5);
        assert_eq!(entries[0].ecx, AMD_CMP_LEGACY | AMD_TOPOLOGY_EXTENSIONS);
        assert_eq!(entries[1].ecx, 5 | 3 << 12);
        assert_eq!((entries[2].eax, entries[2].ebx), (5, 5));
    }
}
