//! CPUID, model-specific registers and the time-stamp counter.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};

use crate::interrupts::in_kernel;

/// First leaf that a hypervisor defines (KVM: Linux Documentation/virt/kvm/x86/cpuid.rst).
pub const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// Leaf whose EAX is the TSC frequency in kHz, where the VMM offers it.
pub const TSC_FREQUENCY_LEAF: u32 = 0x4000_0010;

/// What CPUID returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cpuid {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// CPUID at CPL0. Not at CPL3, because a host without hardware virtualization may run that
/// natively and so show its own CPU rather than what the VMM has set.
pub fn cpuid(leaf: u32, subleaf: u32) -> Cpuid {
    struct Request {
        leaf: u32,
        subleaf: u32,
        result: Cpuid,
    }

    extern "C" fn ask(request: u64) -> u64 {
        // SAFETY: `cpuid` below passes a pointer to its own request and waits.
        let request = unsafe { &mut *(request as *mut Request) };
        request.result = cpuid_here(request.leaf, request.subleaf);
        0
    }

    let mut request = Request {
        leaf,
        subleaf,
        result: Cpuid::default(),
    };
    in_kernel(ask, &raw mut request as u64);
    request.result
}

/// CPUID at the privilege level of the caller.
pub fn cpuid_here(leaf: u32, subleaf: u32) -> Cpuid {
    let result = __cpuid_count(leaf, subleaf);
    Cpuid {
        eax: result.eax,
        ebx: result.ebx,
        ecx: result.ecx,
        edx: result.edx,
    }
}

/// The time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it and the runtime leaves CR4.TSD clear.
    unsafe { _rdtsc() }
}

/// TSC frequency in kHz, if the VMM tells it.
pub fn tsc_khz() -> Option<u32> {
    let last = cpuid(HYPERVISOR_LEAF, 0).eax;
    let khz = if last >= TSC_FREQUENCY_LEAF {
        cpuid(TSC_FREQUENCY_LEAF, 0).eax
    } else {
        0
    };
    (khz != 0).then_some(khz)
}

/// Spins for `ticks` of the time-stamp counter.
pub fn spin_for(ticks: u64) {
    let start = tsc();
    while tsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

/// Reads a model-specific register, at CPL0.
pub fn read_msr(register: u32) -> u64 {
    extern "C" fn read(register: u64) -> u64 {
        let (low, high): (u32, u32);
        // SAFETY: at CPL0; a register that does not exist raises an exception, which ends
        // the program.
        unsafe {
            asm!("rdmsr", in("ecx") register as u32, out("eax") low, out("edx") high,
                 options(nomem, nostack));
        }
        u64::from(high) << 32 | u64::from(low)
    }
    in_kernel(read, register.into())
}

/// Writes a model-specific register, at CPL0.
///
/// # Safety
/// The value must not take away what the runtime stands on (long mode, the LAPIC's place).
pub unsafe fn write_msr(register: u32, value: u64) {
    extern "C" fn write(request: u64) -> u64 {
        // SAFETY: `write_msr` passes a pointer to its own local value and waits.
        let (register, value) = unsafe { *(request as *const (u32, u64)) };
        // SAFETY: at CPL0, and the caller of `write_msr` vouches for the value.
        unsafe {
            asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") value >> 32,
                 options(nostack));
        }
        0
    }
    let request = (register, value);
    in_kernel(write, &raw const request as u64);
}
