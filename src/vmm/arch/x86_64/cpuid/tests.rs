//! CPUID as guests are shown it, from made-up offers.

use super::*;

/// Leaf 1 ECX.
const MONITOR: u32 = 1 << 3;

fn leaf(function: u32, eax: u32, ecx: u32) -> Leaf {
    Leaf {
        function,
        eax,
        ecx,
        ..Default::default()
    }
}

fn offer() -> Vec<Leaf> {
    vec![
        leaf(0, 0x1f, 0),
        leaf(1, 0, MONITOR | 1 << 13),
        indexed(0xb, 0),
        leaf(HYPERVISOR_BASE, 0x4000_0001, 0),
        leaf(ADDRESS_SIZES, 48, 0),
    ]
}

fn mask(names: &str) -> CpuMask {
    match names {
        "" => CpuMask::default(),
        names => names.parse().unwrap(),
    }
}

fn plan_of(offer: &[Leaf], names: &str, (nested, pmu): (bool, bool)) -> CpuidPlan {
    let facts = CpuidFacts {
        vcpus: 1.try_into().unwrap(),
        mask: &mask(names),
        nested,
        pmu,
        tsc_khz: None,
        tsc_deadline: true,
    };
    CpuidPlan::new(offer, facts)
}

fn plan(vcpus: u64, names: &str) -> CpuidPlan {
    let facts = CpuidFacts {
        vcpus: vcpus.try_into().unwrap(),
        mask: &mask(names),
        nested: false,
        pmu: false,
        tsc_khz: Some(2_000_000),
        tsc_deadline: true,
    };
    CpuidPlan::new(&offer(), facts)
}

/// Everything that there could be, in leaves of all kinds, each with bits of the host's.
fn all_ones() -> Vec<Leaf> {
    let leaves = (0..0x25).chain(0x8000_0000..0x8000_0027);
    let entries = leaves.map(|function| Leaf {
        function,
        eax: !0,
        ebx: !0,
        ecx: !0,
        edx: !0,
        ..Default::default()
    });
    entries.collect()
}

fn registers(plan: &CpuidPlan, leaf: u32) -> [u32; 4] {
    find(&plan.entries, leaf, 0).map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
}

#[test]
fn virtualization_and_counters_are_shown_to_those_who_ask() {
    const VT_X: u32 = 1 << 5;
    const PDCM: u32 = 1 << 15;
    for (nested, pmu) in [(false, false), (true, false), (false, true), (true, true)] {
        let plan = plan_of(&all_ones(), "", (nested, pmu));
        let [_, _, features, more] = registers(&plan, 1);
        assert_eq!(features & VT_X != 0, nested);
        assert_eq!(plan.has_vmx(), nested);
        assert_eq!(features & PDCM != 0, pmu);
        assert_eq!(more & 1 << 21 != 0, pmu, "debug store");
        let [_, _, amd, _] = registers(&plan, AMD_FEATURES);
        assert_eq!(amd & SVM != 0, nested);
        assert_eq!(amd & AMD_MORE_COUNTERS != 0, pmu);
        for (leaf, shown) in [
            (0x8000_000a, nested),
            (COUNTERS, pmu),
            (0x14, pmu),
            (0x1c, pmu),
            (0x23, pmu),
            (0x8000_0022, pmu),
        ] {
            assert_eq!(registers(&plan, leaf) != [0; 4], shown, "{leaf:#x}");
        }
        assert_eq!(
            registers(&plan, 7)[1] & 1 << 25 != 0,
            pmu,
            "processor trace"
        );
        // Whoever names a bit hides it all the same.
        let masked = plan_of(&all_ones(), "vmx,svm,pdcm", (nested, pmu));
        assert!(!masked.has_vmx());
        assert_eq!(registers(&masked, 1)[2] & PDCM, 0);
        assert_eq!(registers(&masked, AMD_FEATURES)[2] & SVM, 0);
    }
    assert!(offers_nested(&all_ones()) && offers_counters(&all_ones()));
    assert!(!offers_nested(&offer()) && !offers_counters(&offer()));
}

#[test]
fn nothing_tells_of_the_host() {
    let plan = plan_of(&all_ones(), "", (true, true));
    for leaf in [
        3,
        5,
        9,
        0xf,
        0x10,
        0x12,
        0x19,
        0x1a,
        0x8000_001f,
        0x8000_0020,
        0x8000_0026,
    ] {
        assert_eq!(registers(&plan, leaf), [0; 4], "{leaf:#x}");
    }
    assert_eq!(registers(&plan, 6), [1 << 2, 0, 0, 0], "power and heat");
    assert_eq!(registers(&plan, 0x8000_0007), [0, 0, 0, 1 << 8]);
    let [_, features, ..] = registers(&plan, 7);
    assert_eq!(features & (1 << 2 | 1 << 4 | 1 << 11), 0, "SGX, TSX");
    assert_ne!(features & 1 << 5, 0, "AVX2");
    // APIC ids are those of the VM in each dialect.
    let entries = plan.for_vcpu(0);
    assert_eq!(find(&entries, 1, 0).unwrap().ebx >> 24, 0);
    for leaf in [0xb, 0x1f] {
        for entry in entries.iter().filter(|entry| entry.function == leaf) {
            assert_eq!(entry.edx, 0, "{leaf:#x}");
        }
    }
    let amd = find(&entries, 0x8000_001e, 0).unwrap();
    assert_eq!((amd.eax, amd.ebx, amd.ecx), (0, 0, 0));
}

#[test]
fn what_amd_repeats_is_masked_twice() {
    let plan = plan_of(
        &all_ones(),
        "mce,sse2,avx_vnni,kvm_pv_unhalt",
        (false, false),
    );
    assert_eq!(registers(&plan, 1)[3] & (1 << 7 | 1 << 26), 0);
    // Bit 26 is another feature there: 1 GiB pages.
    assert_eq!(
        registers(&plan, AMD_FEATURES)[3] & (1 << 7 | 1 << 26),
        1 << 26
    );
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
        let entries = plan.for_vcpu(id);
        assert_eq!(find(&entries, 1, 0).unwrap().ebx >> 24, u32::from(id));
        assert_eq!(find(&entries, 0xb, 0).unwrap().edx, u32::from(id));
        let cores = find(&entries, 0xb, 1).unwrap();
        assert_eq!((cores.eax, cores.ebx, cores.edx), (2, 3, u32::from(id)));
    }
}

#[test]
fn what_is_changed_holds_for_what_is_a_vcpus_own_too() {
    let mut plan = plan(2, "");
    let changes = [
        "1:ecx=0b1x01",
        "1:ebx=0b00000111_xxxxxxxx_xxxxxxxx_xxxxxxxx",
        "0x55:eax=0b0",
    ];
    let changes: Vec<CpuidChange> = changes.iter().map(|it| it.parse().unwrap()).collect();
    plan.change(&changes).unwrap();
    for vcpu in 0..2 {
        let entries = plan.for_vcpu(vcpu);
        let seen = find(&entries, 1, 0).unwrap();
        assert_eq!(seen.ecx & 0b1111, 0b1001);
        assert_ne!(seen.ecx & 1 << 13, 0, "what no bit names stays");
        assert_eq!(seen.ebx >> 24, 7);
        assert!(find(&entries, 0x55, 0).is_none());
    }
    // A leaf that is not there reads as zeros, and cannot be made to read as anything else.
    let change: CpuidChange = "0x55:eax=0b1".parse().unwrap();
    assert_eq!(plan.change(&[change]), Err(change));
    let wide = "0x80000008:eax=0b00100000";
    plan.change(&[wide.parse().unwrap()]).unwrap();
    assert_eq!(plan.physical_bits(), 32);
}
