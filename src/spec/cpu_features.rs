//! The feature bits that KVM can show a guest in CPUID, by name.

/// An output register of CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// One feature bit: leaf, subleaf, register and number (Intel SDM vol. 2A, CPUID; AMD APM vol. 3 app. E; Linux
/// Documentation/virt/kvm/x86/cpuid.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureBit {
    /// As Linux has it in /proc/cpuinfo.
    pub name: &'static str,
    /// The leaf.
    pub leaf: u32,
    /// Which part of it.
    pub subleaf: u32,
    /// The register of that.
    pub register: Register,
    /// The bit in the register, 0 to 31.
    pub bit: u8,
}

impl FeatureBit {
    /// The feature that a bit stands for, if it is one that has a name.
    pub fn at(leaf: u32, subleaf: u32, register: Register, bit: u8) -> Option<&'static Self> {
        FEATURES.iter().find(|feature| {
            let place = (feature.leaf, feature.subleaf, feature.register, feature.bit);
            place == (leaf, subleaf, register, bit)
        })
    }
}

macro_rules! features {
    ($(($leaf:literal, $subleaf:literal) $register:ident { $($name:literal = $bit:literal),* $(,)? })*) => {
        &[$($(FeatureBit {
            name: $name, leaf: $leaf, subleaf: $subleaf, register: Register::$register, bit: $bit,
        },)*)*]
    };
}

/// Names are those of Linux's /proc/cpuinfo, with the common spelling where it differs, and those of
/// arch/x86/include/asm/cpufeatures.h for what is not shown there. Bits of the topology are not here: kvmlet sets
/// them.
pub(super) const FEATURES: &[FeatureBit] = features! {
    (0x1, 0) Ecx {
        "sse3" = 0, "pclmulqdq" = 1, "dtes64" = 2, "monitor" = 3, "ds_cpl" = 4, "vmx" = 5, "smx" = 6,
        "est" = 7, "tm2" = 8, "ssse3" = 9, "fma" = 12, "cx16" = 13, "pdcm" = 15, "pcid" = 17, "sse4_1" = 19,
        "sse4_2" = 20, "x2apic" = 21, "movbe" = 22, "popcnt" = 23, "tsc_deadline" = 24, "aes" = 25,
        "xsave" = 26, "avx" = 28, "f16c" = 29, "rdrand" = 30
    }
    (0x1, 0) Edx {
        "fpu" = 0, "vme" = 1, "de" = 2, "pse" = 3, "tsc" = 4, "msr" = 5, "pae" = 6, "mce" = 7, "cx8" = 8,
        "apic" = 9, "sep" = 11, "mtrr" = 12, "pge" = 13, "mca" = 14, "cmov" = 15, "pat" = 16, "pse36" = 17,
        "clflush" = 19, "dts" = 21, "mmx" = 23, "fxsr" = 24, "sse" = 25, "sse2" = 26, "ss" = 27
    }
    (0x6, 0) Eax {
        "arat" = 2
    }
    (0x7, 0) Ebx {
        "fsgsbase" = 0, "tsc_adjust" = 1, "sgx" = 2, "bmi1" = 3, "hle" = 4, "avx2" = 5,
        "fdp_excptn_only" = 6, "smep" = 7, "bmi2" = 8, "erms" = 9, "invpcid" = 10, "rtm" = 11,
        "zero_fcs_fds" = 13, "mpx" = 14, "avx512f" = 16, "avx512dq" = 17, "rdseed" = 18, "adx" = 19,
        "smap" = 20, "avx512ifma" = 21, "clflushopt" = 23, "clwb" = 24, "intel_pt" = 25, "avx512pf" = 26,
        "avx512er" = 27, "avx512cd" = 28, "sha_ni" = 29, "avx512bw" = 30, "avx512vl" = 31
    }
    (0x7, 0) Ecx {
        "avx512vbmi" = 1, "umip" = 2, "pku" = 3, "waitpkg" = 5, "avx512_vbmi2" = 6, "shstk" = 7, "gfni" = 8,
        "vaes" = 9, "vpclmulqdq" = 10, "avx512_vnni" = 11, "avx512_bitalg" = 12, "avx512_vpopcntdq" = 14,
        "la57" = 16, "rdpid" = 22, "bus_lock_detect" = 24, "cldemote" = 25, "movdiri" = 27,
        "movdir64b" = 28, "enqcmd" = 29, "sgx_lc" = 30, "pks" = 31
    }
    (0x7, 0) Edx {
        "avx512_4vnniw" = 2, "avx512_4fmaps" = 3, "fsrm" = 4, "avx512_vp2intersect" = 8, "srbds_ctrl" = 9,
        "md_clear" = 10, "rtm_always_abort" = 11, "tsx_force_abort" = 13, "serialize" = 14,
        "hybrid_cpu" = 15, "tsxldtrk" = 16, "arch_lbr" = 19, "ibt" = 20, "amx_bf16" = 22,
        "avx512_fp16" = 23, "amx_tile" = 24, "amx_int8" = 25, "spec_ctrl" = 26, "stibp" = 27,
        "flush_l1d" = 28, "arch_capabilities" = 29, "core_capabilities" = 30, "ssbd" = 31
    }
    (0x7, 1) Eax {
        "sha512" = 0, "sm3" = 1, "sm4" = 2, "avx_vnni" = 4, "avx512_bf16" = 5, "cmpccxadd" = 7,
        "arch_perfmon_ext" = 8, "fzrm" = 10, "fsrs" = 11, "fsrc" = 12, "fred" = 17, "lkgs" = 18,
        "wrmsrns" = 19, "amx_fp16" = 21, "avx_ifma" = 23, "lam" = 26
    }
    (0x7, 1) Edx {
        "avx_vnni_int8" = 4, "avx_ne_convert" = 5, "amx_complex" = 8, "avx_vnni_int16" = 10,
        "prefetchiti" = 14, "avx10" = 19
    }
    (0x7, 2) Edx {
        "intel_psfd" = 0, "ipred_ctrl" = 1, "rrsba_ctrl" = 2, "ddpd_u" = 3, "bhi_ctrl" = 4, "mcdt_no" = 5
    }
    (0xd, 1) Eax {
        "xsaveopt" = 0, "xsavec" = 1, "xgetbv1" = 2, "xsaves" = 3, "xfd" = 4
    }
    (0x80000001, 0) Ecx {
        "lahf_lm" = 0, "svm" = 2, "cr8_legacy" = 4, "lzcnt" = 5, "sse4a" = 6, "misalignsse" = 7,
        "3dnowprefetch" = 8, "osvw" = 9, "ibs" = 10, "xop" = 11, "skinit" = 12, "fma4" = 16, "tbm" = 21,
        "perfctr_core" = 23, "perfctr_nb" = 24, "bpext" = 26, "perfctr_llc" = 28
    }
    (0x80000001, 0) Edx {
        "syscall" = 11, "nx" = 20, "mmxext" = 22, "fxsr_opt" = 25, "pdpe1gb" = 26, "rdtscp" = 27, "lm" = 29,
        "3dnowext" = 30, "3dnow" = 31
    }
    (0x80000007, 0) Edx {
        "invariant_tsc" = 8
    }
    (0x80000008, 0) Ebx {
        "clzero" = 0, "xsaveerptr" = 2, "rdpru" = 4, "wbnoinvd" = 9, "amd_ibpb" = 12, "amd_ibrs" = 14,
        "amd_stibp" = 15, "amd_stibp_always_on" = 17, "amd_ssbd" = 24, "virt_ssbd" = 25, "amd_ssb_no" = 26,
        "amd_psfd" = 28, "ibpb_ret" = 30
    }
    (0x8000000a, 0) Edx {
        "npt" = 0, "lbrv" = 1, "svm_lock" = 2, "nrip_save" = 3, "tsc_scale" = 4, "vmcb_clean" = 5,
        "flushbyasid" = 6, "decodeassists" = 7, "pausefilter" = 10, "pfthreshold" = 12, "avic" = 13,
        "v_vmsave_vmload" = 15, "vgif" = 16, "x2avic" = 18, "v_spec_ctrl" = 20, "vnmi" = 25,
        "svme_addr_chk" = 28
    }
    (0x80000021, 0) Eax {
        "no_nested_data_bp" = 0, "wrmsr_xx_base_ns" = 1, "lfence_rdtsc" = 2, "verw_clear" = 5,
        "null_sel_clr_base" = 6, "autoibrs" = 8, "no_smm_ctl_msr" = 9, "prefetchi" = 20, "sbpb" = 27,
        "ibpb_brtype" = 28, "srso_no" = 29, "srso_user_kernel_no" = 30
    }
    (0x80000021, 0) Ecx {
        "tsa_sq_no" = 1, "tsa_l1_no" = 2
    }
    (0x40000001, 0) Eax {
        "kvm_clocksource" = 0, "kvm_nop_io_delay" = 1, "kvm_clocksource2" = 3, "kvm_async_pf" = 4,
        "kvm_steal_time" = 5, "kvm_pv_eoi" = 6, "kvm_pv_unhalt" = 7, "kvm_pv_tlb_flush" = 9,
        "kvm_async_pf_vmexit" = 10, "kvm_pv_send_ipi" = 11, "kvm_poll_control" = 12,
        "kvm_pv_sched_yield" = 13, "kvm_async_pf_int" = 14, "kvm_migration_control" = 17,
        "kvm_clocksource_stable" = 24
    }
};

/// What /proc/cpuinfo calls some of them.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("pni", "sse3"),
    ("abm", "lzcnt"),
    ("tsc_deadline_timer", "tsc_deadline"),
    ("constant_tsc", "invariant_tsc"),
    ("nonstop_tsc", "invariant_tsc"),
    ("nrip", "nrip_save"),
];
