//! vCPUs in the making: what their CPUID says, and what firmware would have set.

use super::begins::Begins;
use super::cpuid_offer;
use super::error::{Doing, Error};
use super::kvm_state;
use super::refusal::Refusal;
use super::restoring;
use super::time_elsewhere;
use super::vcpu::Vcpu;
use super::vcpu_state::{self, Means};
use crate::arch::x86_64::address_map as map;
use crate::arch::x86_64::boot::BootState;
use crate::arch::x86_64::cpuid::{self, CpuidFacts, CpuidPlan, Leaf};
use crate::arch::x86_64::msr::{self, Msr};
use crate::config::{MsrChange, VmConfig};
use crate::snapshot::{Saved, VcpuState};
use kvm_bindings::{
    KVM_CAP_PMU_CAPABILITY, KVM_CAP_SYNC_REGS, KVM_MAX_CPUID_ENTRIES, KVM_PMU_CAP_DISABLE,
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, Msrs, kvm_enable_cap,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd, VmFd};
use kvmlet_sys::directory::Directory;
use std::sync::Arc;

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
    let mut plan = CpuidPlan::new(&offer, facts);
    let changed = plan.change(&config.cpuid);
    changed.map_err(|change| Error::CpuidLeaf { change })?;
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
    const KVM_GET_TSC_KHZ: libc::Ioctl = 0xaea3;
    use std::os::fd::AsRawFd;
    // SAFETY: the ioctl takes no argument and returns a number or an error.
    let khz = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_GET_TSC_KHZ) };
    u32::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// All vCPUs of a machine.
pub(super) fn all(
    kvm: &Kvm,
    fd: &VmFd,
    begins: &Begins,
    cpuid: &CpuidPlan,
    msrs: &[MsrChange],
) -> Result<Vec<Vcpu>, Error> {
    let means = Arc::new(Means::of(kvm)?);
    match begins {
        Begins::Booted(state) => {
            // One that is on no list would be in no snapshot.
            let unknown = msrs.iter().find(|msr| !means.has(msr.index()));
            unknown.map_or(Ok(()), |msr| Err(Error::refused_msr(msr.index())))?;
            let vcpu = |number| {
                let vcpu = build(fd, number, cpuid, state, &means)?;
                msrs.iter().try_for_each(|msr| change_msr(&vcpu.fd, msr))?;
                Ok(vcpu)
            };
            (0..cpuid.vcpus()).map(vcpu).collect()
        }
        Begins::Resumed(saved) => resume(fd, cpuid, saved, &means),
    }
}

/// Creates vCPUs that go on as others were, on a host that offers that.
fn resume(
    vm: &VmFd,
    offered: &CpuidPlan,
    saved: &Saved,
    means: &Arc<Means>,
) -> Result<Vec<Vcpu>, Error> {
    let refused = restoring::of(&saved.path);
    let states = &saved.state.vcpus;
    let known = states.iter().try_for_each(|state| means.check(state));
    known.map_err(&refused)?;
    let mut vcpus = Vec::new();
    for state in states {
        let fd = vm.create_vcpu(state.number.into());
        let fd = fd.doing("create a vCPU")?;
        if state.number == 0 {
            let ours = seen(&fd, &offered.for_vcpu(0))?;
            let fit = |state: &VcpuState| restoring::check_cpu(&state.cpuid, &ours);
            states.iter().try_for_each(fit).map_err(&refused)?;
        }
        let leaves = kvm_state::cpuid(&state.cpuid)?;
        fd.set_cpuid2(&leaves).doing("set a vCPU's CPUID")?;
        if state.tsc_khz != 0 && fd.get_tsc_khz().is_ok_and(|khz| khz != state.tsc_khz) {
            // Where KVM cannot scale it, it says so.
            fd.set_tsc_khz(state.tsc_khz)
                .doing("have a time-stamp counter count as fast as the saved one")?;
        }
        vcpu_state::write(&fd, state)?;
        if state.number == 0
            && let Some(behind) = vcpu_state::tsc_behind(&fd, state)
        {
            return Err(refused(Refusal::Tsc { behind }));
        }
        vcpus.push(Vcpu {
            number: state.number,
            is_first: state.number == 0,
            resumes: true,
            means: means.clone(),
            fd,
            counters: Default::default(),
        });
    }
    time_elsewhere::set_clock(vm, &saved.state)?;
    Ok(vcpus)
}

/// What a guest sees of a processor that is to answer that: with kvm_pvm it is the host's that answers for some leaves, and
/// KVM tells so.
fn seen(fd: &VcpuFd, leaves: &[Leaf]) -> Result<Vec<Leaf>, Error> {
    let set = fd.set_cpuid2(&kvm_state::cpuid(leaves)?);
    set.doing("set a vCPU's CPUID")?;
    let seen = fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES);
    Ok(kvm_state::leaves(&seen.doing("tell a vCPU's CPUID")?))
}

/// Creates a vCPU. The first gets the boot state; the others wait for the guest to start them (INIT, SIPI). The pins of
/// local APICs stay as a reset leaves them: nothing is connected to them where there is no PIC.
fn build(
    vm: &VmFd,
    number: u8,
    cpuid: &CpuidPlan,
    state: &BootState,
    means: &Arc<Means>,
) -> Result<Vcpu, Error> {
    let mut fd = vm.create_vcpu(number.into()).doing("create a vCPU")?;
    let leaves = kvm_state::cpuid(&cpuid.for_vcpu(number))?;
    fd.set_cpuid2(&leaves).doing("set a vCPU's CPUID")?;
    set_msrs(&fd, cpuid.has_vmx())?;
    if number == 0 {
        set_registers(vm, &mut fd, state)?;
    }
    Ok(Vcpu {
        number,
        is_first: number == 0,
        resumes: false,
        means: means.clone(),
        fd,
        counters: Default::default(),
    })
}

/// Where KVM takes registers with its next KVM_RUN (KVM_CAP_SYNC_REGS), no calls are made for them: each is a trap where
/// the host is a VM itself.
fn set_registers(vm: &VmFd, fd: &mut VcpuFd, state: &BootState) -> Result<(), Error> {
    let (general, special) = (
        kvm_state::general(&state.registers),
        kvm_state::special(state),
    );
    let taken = vm.check_extension_raw(KVM_CAP_SYNC_REGS.into());
    let wanted = (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS) as i32;
    if taken & wanted == wanted {
        let registers = fd.sync_regs_mut();
        (registers.regs, registers.sregs) = (general, special);
        fd.set_sync_dirty_reg(SyncReg::Register);
        fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        return Ok(());
    }
    fd.set_sregs(&special)
        .doing("set a vCPU's special registers")?;
    fd.set_regs(&general).doing("set a vCPU's registers")
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

/// After all that firmware would have set: what is asked for holds.
fn change_msr(fd: &VcpuFd, change: &MsrChange) -> Result<(), Error> {
    let msr = |value| Msr {
        index: change.index(),
        value,
    };
    let mut known = kvm_state::msrs(&[msr(0)])?;
    let read = fd.get_msrs(&mut known).doing(MSRS)?;
    all_of(&known, read)?;
    let before = known.as_slice().first().map_or(0, |entry| entry.data);
    let changed = kvm_state::msrs(&[msr(change.bits().of(before))])?;
    let written = fd.set_msrs(&changed).doing(MSRS)?;
    all_of(&changed, written)
}

const MSRS: &str = "set a vCPU's model-specific registers";

fn all_of(msrs: &Msrs, done: usize) -> Result<(), Error> {
    match msrs.as_slice().get(done) {
        None => Ok(()),
        Some(refused) => Err(Error::refused_msr(refused.index)),
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
