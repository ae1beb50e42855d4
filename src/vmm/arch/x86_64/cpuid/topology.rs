//! One package with a core for each vCPU and no hyperthreads, told in every dialect of CPUID.

use super::{find, find_mut, indexed};
use kvm_bindings::kvm_cpuid_entry2;

const FEATURES: u32 = 1;
/// Leaf 1 EDX: the logical-processor count in EBX is valid.
const HTT: u32 = 1 << 28;
/// Intel deterministic cache parameters.
const CACHES: u32 = 4;
/// Extended topology, version 1 and 2 (Intel SDM vol. 2A; AMD APM vol. 3 §E.3.9).
const EXTENDED_TOPOLOGY: [u32; 2] = [0xb, 0x1f];
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;
/// AMD: extended features, core count, caches, extended APIC id (AMD APM vol. 3 §E.4).
const AMD_FEATURES: u32 = 0x8000_0001;
const AMD_CMP_LEGACY: u32 = 1 << 1;
const AMD_TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
const AMD_CORES: u32 = 0x8000_0008;
const AMD_CACHES: u32 = 0x8000_001d;
const AMD_APIC_ID: u32 = 0x8000_001e;

/// Bits that an APIC id needs so that each of `vcpus` has its own.
fn id_bits(vcpus: u8) -> u32 {
    u8::BITS - (vcpus - 1).leading_zeros()
}

/// Writes what all vCPUs share.
pub(super) fn describe(entries: &mut Vec<kvm_cpuid_entry2>, vcpus: u8) {
    let count = u32::from(vcpus);
    if let Some(entry) = find_mut(entries, FEATURES, 0) {
        entry.ebx = entry.ebx & !0x00ff_0000 | count << 16;
        set_bits(&mut entry.edx, HTT, vcpus > 1);
    }
    for entry in entries.iter_mut().filter(|entry| entry.function == CACHES) {
        let shared_by = cache_sharers(entry.eax, count);
        entry.eax = entry.eax & !0xffff_c000 | (shared_by - 1) << 14 | (count - 1).min(0x3f) << 26;
    }
    for entry in entries
        .iter_mut()
        .filter(|entry| entry.function == AMD_CACHES)
    {
        entry.eax = entry.eax & !0x03ff_c000 | (cache_sharers(entry.eax, count) - 1) << 14;
    }
    describe_amd(entries, vcpus);
    describe_levels(entries, vcpus);
}

/// Caches of level 3 and up serve all cores, the others one (EAX bits 7:5 are the level).
fn cache_sharers(eax: u32, vcpus: u32) -> u32 {
    if eax >> 5 & 7 >= 3 { vcpus } else { 1 }
}

fn describe_amd(entries: &mut [kvm_cpuid_entry2], vcpus: u8) {
    if let Some(entry) = find_mut(entries, AMD_CORES, 0) {
        entry.ecx = entry.ecx & !0xf0ff | u32::from(vcpus - 1) | id_bits(vcpus) << 12;
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

fn describe_levels(entries: &mut Vec<kvm_cpuid_entry2>, vcpus: u8) {
    for leaf in EXTENDED_TOPOLOGY {
        let offered = entries.iter().any(|entry| entry.function == leaf);
        entries.retain(|entry| entry.function != leaf);
        if !offered {
            continue;
        }
        let mut level = |subleaf: u32, shift: u32, count: u32, kind: u32| {
            entries.push(kvm_cpuid_entry2 {
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
pub(super) fn identify(entries: &mut [kvm_cpuid_entry2], vcpu: u8) {
    let id = u32::from(vcpu);
    for entry in entries {
        match entry.function {
            FEATURES => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
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
        let cache = |level: u32| kvm_cpuid_entry2 {
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
        let amd = |function| kvm_cpuid_entry2 {
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
