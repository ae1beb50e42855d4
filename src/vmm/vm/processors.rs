//! vCPUs in the making: what their CPUID says, and what firmware would have set.

use super::cpuid_offer;
use super::error::{Doing, Error};
use super::kvm_state;
use super::vcpu::Vcpu;
use crate::arch::x86_64::address_map as map;
use crate::arch::x86_64::boot::BootState;
use crate::arch::x86_64::cpuid::{self, CpuidFacts, CpuidPlan, Leaf};
use crate::arch::x86_64::msr::{self, Msr};
use crate::config::VmConfig;
use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, Msrs, kvm_enable_cap};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use kvmlet_sys::directory::Directory;

pub(super) fn plan_cpuid(
    kvm: &Kvm,
    fd: &VmFd,
    config: &VmConfig,
    notes: Option<&Directory>,
) -> Result<CpuidPlan, Error> {
    let offer = cpuid_offer::recall(kvm, notes).doing("tell which CPU features it supports")?;
    let offer = kvm_state::leaves(&offer);
    check_offer(kvm, &offer, config)?;
    let facts = CpuidFacts {
        vcpus: config.vcpus,
        mask: &config.cpu_mask,
        nested: config.nested,
        pmu: config.pmu,
        tsc_khz: tsc_khz(fd),
        tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
    };
    let plan = CpuidPlan::new(&offer, facts);
    let (memory, bits) = (config.memory, plan.physical_bits());
    let end = map::ram_end(memory);
    if end > 1u64.checked_shl(bits.into()).unwrap_or(u64::MAX) {
        return Err(Error::AddressWidth { memory, end, bits });
    }
    Ok(plan)
}

/// Has this host's KVM what was asked for?
fn check_offer(kvm: &Kvm, offer: &[Leaf], config: &VmConfig) -> Result<(), Error> {
    if config.nested && !cpuid::offers_nested(offer) {
        return Err(Error::NestedMissing);
    }
    // The capability came with Linux 5.18, and tells of counters that CPUID does not.
    let told = || kvm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into()) > 0;
    if config.pmu && !cpuid::offers_counters(offer) && !told() {
        return Err(Error::PmuMissing);
    }
    Ok(())
}

/// Takes performance counters away from the vCPUs to come, their registers as well as their CPUID: AMD's first four are
/// there without a bit that says so. Kernels before 5.18 cannot.
pub(super) fn leave_out_counters(kvm: &Kvm, fd: &VmFd) -> Result<(), Error> {
    if kvm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into()) & KVM_PMU_CAP_DISABLE as i32 == 0 {
        return Ok(());
    }
    let cap = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        args: [KVM_PMU_CAP_DISABLE.into(), 0, 0, 0],
        ..Default::default()
    };
    fd.enable_cap(&cap)
        .doing("leave out performance counters (KVM_CAP_PMU_CAPABILITY)")
}

/// The TSC frequency that new vCPUs get, where KVM tells it for a VM (KVM_CAP_VM_TSC_CONTROL) or at all.
fn tsc_khz(fd: &VmFd) -> Option<u32> {
    // KVM_GET_TSC_KHZ as a VM ioctl; kvm-ioctls has it for vCPUs only, which do not exist yet.
    const KVM_GET_TSC_KHZ: libc::c_ulong = 0xaea3;
    use std::os::fd::AsRawFd;
    // SAFETY: the ioctl takes no argument and returns a number or an error.
    let khz = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_TSC_KHZ) };
    u32::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// Creates a vCPU. The first gets the boot state; the others wait for the guest to start them (INIT, SIPI).
pub(super) fn build(
    vm: &VmFd,
    number: u8,
    cpuid: &CpuidPlan,
    state: &BootState,
) -> Result<Vcpu, Error> {
    let fd = vm.create_vcpu(number.into()).doing("create a vCPU")?;
    let leaves = kvm_state::cpuid(&cpuid.for_vcpu(number))?;
    fd.set_cpuid2(&leaves).doing("set a vCPU's CPUID")?;
    set_msrs(&fd, cpuid.has_vmx())?;
    let mut local_apic = fd.get_lapic().doing("read a vCPU's local APIC")?;
    kvm_state::wire_local_pins(&mut local_apic);
    fd.set_lapic(&local_apic).doing("set a vCPU's local APIC")?;
    if number == 0 {
        let mut special = fd.get_sregs().doing("read a vCPU's registers")?;
        kvm_state::apply(state, &mut special);
        fd.set_sregs(&special)
            .doing("set a vCPU's special registers")?;
        fd.set_regs(&kvm_state::general(&state.registers))
            .doing("set a vCPU's registers")?;
    }
    Ok(Vcpu {
        number,
        is_first: number == 0,
        fd,
        counters: Default::default(),
    })
}

/// Both calls stop at the first register that KVM does not have and say how many they came to.
fn set_msrs(fd: &VcpuFd, vmx: bool) -> Result<(), Error> {
    let old = Msr {
        index: msr::IA32_MISC_ENABLE,
        value: 0,
    };
    let mut old = kvm_state::msrs(&[old])?;
    let read = fd.get_msrs(&mut old).doing(MSRS)?;
    all_of(&old, read)?;
    let misc_enable = old.as_slice().first().map_or(0, |entry| entry.data);
    let msrs = kvm_state::msrs(&msr::boot_msrs(misc_enable, vmx))?;
    let written = fd.set_msrs(&msrs).doing(MSRS)?;
    all_of(&msrs, written)
}

const MSRS: &str = "set a vCPU's model-specific registers";

fn all_of(msrs: &Msrs, done: usize) -> Result<(), Error> {
    match msrs.as_slice().get(done) {
        None => Ok(()),
        Some(refused) => Err(Error::Msr {
            index: refused.index,
            name: msr::name(refused.index),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_that_kvm_does_not_take_is_named() {
        let msrs = kvm_state::msrs(&msr::boot_msrs(0, false)).unwrap();
        assert!(all_of(&msrs, 2).is_ok());
        let error = all_of(&msrs, 1).unwrap_err().to_string();
        assert_eq!(
            error,
            "this host's KVM does not take the model-specific register 0x2ff (IA32_MTRR_DEF_TYPE)"
        );
    }
}
