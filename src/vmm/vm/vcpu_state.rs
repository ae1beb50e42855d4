//! A vCPU's state: how it is read, and in which order it is set.

use super::error::{Doing, Error};
use super::kvm_state;
use super::refusal::Refusal;
use super::time_elsewhere::{set_tsc, time_of_day};
use crate::arch::x86_64::msr::{Msr, TSC};
use crate::snapshot::VcpuState;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_mp_state, kvm_xsave};
use kvm_ioctls::{Kvm, VcpuFd};

/// What KVM has told of all vCPUs: a process in the jail cannot ask.
#[derive(Debug, Default)]
pub(super) struct Means {
    /// The model-specific registers that there are.
    msrs: Vec<u32>,
}

impl Means {
    pub fn of(kvm: &Kvm) -> Result<Self, Error> {
        let list = kvm.get_msr_index_list();
        let list = list.doing("tell which model-specific registers it has")?;
        let msrs = list.as_slice().to_vec();
        Ok(Self { msrs })
    }

    /// Is there such a register, so that it is saved with the others?
    pub fn has(&self, msr: u32) -> bool {
        self.msrs.contains(&msr)
    }

    /// Looks at what KVM would take of the host's and not of a guest: registers that are on no list, and modes that no guest
    /// of ours can be in.
    pub fn check(&self, state: &VcpuState) -> Result<(), Refusal> {
        let unknown = |msr: &&Msr| !self.msrs.contains(&msr.index);
        if let Some(msr) = state.msrs.iter().find(unknown) {
            return Err(Refusal::Msr { index: msr.index });
        }
        match state.sregs.efer & !GUESTS_EFER {
            0 => Ok(()),
            bits => Err(Refusal::Efer { bits }),
        }
    }
}

/// Bits of EFER that a guest of ours can set (AMD64 volume 2 §3.1.7): system calls, long mode, no-execute, fast FXSAVE,
/// translation cache, automatic IBRS; not virtualization of its own, which KVM would believe here.
const GUESTS_EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 21;
/// When the local APIC's timer is due, in that counter's time.
const TSC_DEADLINE: u32 = 0x6e0;
/// As many as KVM takes at once.
const MSRS_AT_ONCE: usize = 128;

/// Reads it, by the vCPU's own thread, which has come out of KVM_RUN with nothing left to be completed. Reading changes
/// nothing that matters.
#[inline(never)] // It takes pages of stack, and most vCPUs are never read.
pub(super) fn read(fd: &VcpuFd, number: u8, means: &Means) -> Result<VcpuState, Error> {
    // First: KVM may turn a vCPU that was woken into one that runs, and the rest is read as of then.
    let mp_state = fd.get_mp_state().doing("tell whether a vCPU runs")?;
    let cpuid = fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES);
    let cpuid = cpuid.doing("tell a vCPU's CPUID")?;
    // The FPU is as large as this structure: more (KVM_CAP_XSAVE2) is what only a process has that asks Linux for AMX on
    // behalf of its guests, and kvmlet does not.
    let xsave = fd.get_xsave().doing("tell a vCPU's FPU")?;
    let xsave = xsave.region.iter().flat_map(|word| word.to_le_bytes());
    let mut msrs = read_msrs(fd, &means.msrs)?;
    let read_at = read_tsc(fd, &mut msrs)?;
    Ok(VcpuState {
        number,
        cpuid: kvm_state::leaves(&cpuid),
        mp_state: mp_state.mp_state,
        regs: fd.get_regs().doing("tell a vCPU's registers")?,
        sregs: fd.get_sregs().doing("tell a vCPU's special registers")?,
        xsave: xsave.collect(),
        xcrs: fd.get_xcrs().doing("tell a vCPU's XCR0")?,
        debugregs: fd.get_debug_regs().doing("tell a vCPU's debug registers")?,
        lapic: fd.get_lapic().doing("tell a local APIC")?,
        msrs,
        read_at,
        tsc_khz: fd.get_tsc_khz().unwrap_or(0),
        // Last: what is on its way may have been changed by what was read before.
        events: fd.get_vcpu_events().doing("tell a vCPU's events")?,
    })
}

/// All that can be read: KVM stops at one that it has on its list for other processors only.
fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<Msr>, Error> {
    let (mut read, mut rest) = (Vec::new(), indices);
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(MSRS_AT_ONCE)];
        let wanted: Vec<Msr> = now
            .iter()
            .map(|index| Msr {
                index: *index,
                value: 0,
            })
            .collect();
        let mut list = kvm_state::msrs(&wanted)?;
        let count = fd
            .get_msrs(&mut list)
            .doing("tell model-specific registers")?;
        let entries = list.as_slice().iter().take(count);
        read.extend(entries.map(|entry| Msr {
            index: entry.index,
            value: entry.data,
        }));
        let skipped = usize::from(count < now.len());
        rest = &rest[count + skipped..];
    }
    Ok(read)
}

/// Reads the time-stamp counter once more, if it is among these, and returns the time of day when that was: guests compare
/// it with KVM's clock, by parts of a millisecond, and to read all registers may take longer.
fn read_tsc(fd: &VcpuFd, msrs: &mut [Msr]) -> Result<u64, Error> {
    let before = time_of_day();
    if let Some(tsc) = msrs.iter_mut().find(|msr| msr.index == TSC)
        && let Some(read) = read_msrs(fd, &[TSC])?.first()
    {
        *tsc = *read;
    }
    Ok(u64::midpoint(before, time_of_day()))
}

/// Sets it on a vCPU that was just made, with its CPUID.
///
/// The order: whether it runs; registers; special registers, which have the place and mode of the local APIC; which parts
/// of the FPU are on, and the FPU; debug registers; the time-stamp counter, in whose time KVM keeps timers; the local APIC;
/// other model-specific registers, since a deadline is one that only a local APIC in that mode takes; and events, which KVM
/// would change by all that.
pub(super) fn write(fd: &VcpuFd, state: &VcpuState) -> Result<(), Error> {
    let mp_state = kvm_mp_state {
        mp_state: state.mp_state,
    };
    fd.set_mp_state(mp_state).doing("set whether a vCPU runs")?;
    fd.set_regs(&state.regs).doing("set a vCPU's registers")?;
    fd.set_sregs(&state.sregs)
        .doing("set a vCPU's special registers")?;
    fd.set_xcrs(&state.xcrs).doing("set a vCPU's XCR0")?;
    let mut xsave = kvm_xsave::default();
    for (word, bytes) in xsave.region.iter_mut().zip(state.xsave.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_le_bytes);
    }
    // SAFETY: KVM reads as much of it as the guest's state components take, which is all of it at the most: no process of
    // ours asks for those that take more.
    unsafe { fd.set_xsave(&xsave) }.doing("set a vCPU's FPU")?;
    fd.set_debug_regs(&state.debugregs)
        .doing("set a vCPU's debug registers")?;
    set_tsc(fd, state)?;
    fd.set_lapic(&state.lapic).doing("set a local APIC")?;
    write_msrs(fd, &state.msrs)?;
    fd.set_vcpu_events(&state.events)
        .doing("set a vCPU's events")
}

/// All but the time-stamp counter, and what is due in its time last.
fn write_msrs(fd: &VcpuFd, msrs: &[Msr]) -> Result<(), Error> {
    let mut sorted: Vec<Msr> = msrs
        .iter()
        .filter(|msr| msr.index != TSC)
        .copied()
        .collect();
    sorted.sort_by_key(|msr| msr.index == TSC_DEADLINE);
    let mut rest = &sorted[..];
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(MSRS_AT_ONCE)];
        let list = kvm_state::msrs(now)?;
        let count = fd.set_msrs(&list).doing("set model-specific registers")?;
        if let Some(refused) = now.get(count) {
            expect(fd, *refused)?;
            rest = &rest[count + 1..];
        } else {
            rest = &rest[count..];
        }
    }
    Ok(())
}

/// A register that can only be read has to hold what it held.
fn expect(fd: &VcpuFd, msr: Msr) -> Result<(), Error> {
    match read_msrs(fd, &[msr.index])?.first() {
        Some(read) if *read == msr => Ok(()),
        _ => Err(Error::refused_msr(msr.index)),
    }
}

/// By how much the time-stamp counter that a guest sees is behind what it was, if it is: where KVM takes what it is set to
/// and does not keep it, as kvm_pvm does, it is the host's, and on another host that may have counted less.
pub(super) fn tsc_behind(fd: &VcpuFd, state: &VcpuState) -> Option<u64> {
    let was = state.tsc()?;
    let is = read_msrs(fd, &[TSC]).ok()?.first()?.value;
    was.checked_sub(is).filter(|behind| *behind > 0)
}
