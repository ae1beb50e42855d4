//! Time for a guest that goes on: its clocks have gone on while it was saved, by as much as the host's has.

use super::error::{Doing, Error};
use super::kvm_state;
use crate::arch::x86_64::msr::{Msr, TSC};
use crate::snapshot::{VcpuState, VmState};
use kvm_bindings::{KVM_CLOCK_REALTIME, kvm_clock_data};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// The host's time of day, in nanoseconds since 1970.
pub(super) fn time_of_day() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// How long ago that was, in nanoseconds; nothing where that is not known, or the host's clock was set back.
fn since(time_of_day: u64) -> u64 {
    match time_of_day {
        0 => 0,
        then => self::time_of_day().saturating_sub(then),
    }
}

/// What a counter has come to, that long after it was read.
fn counted(state: &VcpuState, read: u64, nanoseconds: u64) -> u64 {
    let cycles = u128::from(nanoseconds) * u128::from(state.tsc_khz) / 1_000_000;
    read.wrapping_add(cycles as u64)
}

/// Sets the time-stamp counter of a vCPU that was just made, before its local APIC, whose timer is kept in that counter's time.
///
/// KVM takes a counter that is less than a second from those of vCPUs that have theirs for one that is to be equal to them.
/// So it is, for all but the first: they were read one after the other. Before Linux 6.7 it compares the first with what
/// it was made with, too, and would not set that of a guest which was saved in its first second: one far away comes before.
pub(super) fn set_tsc(fd: &VcpuFd, state: &VcpuState) -> Result<(), Error> {
    const FAR: u64 = 1 << 62;
    let Some(read) = state.tsc() else {
        return Ok(());
    };
    let now = || counted(state, read, since(state.read_at));
    if state.number == 0 {
        write(fd, now().wrapping_add(FAR))?;
    }
    write(fd, now())
}

fn write(fd: &VcpuFd, value: u64) -> Result<(), Error> {
    let list = kvm_state::msrs(&[Msr { index: TSC, value }])?;
    match fd.set_msrs(&list).doing("set a time-stamp counter")? {
        0 => Err(Error::refused_msr(TSC)),
        _ => Ok(()),
    }
}

/// Sets KVM's clock, after vCPUs have their state, which that of one depends on, and before they run: a guest that has
/// seen another time would wait until that is reached. Where KVM has not told the time of day with it, or takes none, it
/// is advanced here.
pub(super) fn set_clock(fd: &VmFd, state: &VmState) -> Result<(), Error> {
    let known = fd.check_extension_int(Cap::AdjustClock) as u32;
    let saved = &state.clock;
    let flags = saved.flags & known & KVM_CLOCK_REALTIME;
    let clock = match flags {
        0 => kvm_clock_data {
            clock: saved.clock.saturating_add(since(saved.realtime)),
            ..Default::default()
        },
        flags => kvm_clock_data {
            clock: saved.clock,
            flags,
            realtime: saved.realtime,
            ..Default::default()
        },
    };
    fd.set_clock(&clock).doing("set its clock")
}

/// KVM's clock as of now, always with the time of day.
pub(super) fn clock(fd: &VmFd) -> Result<kvm_clock_data, Error> {
    let mut clock = fd.get_clock().doing("tell its clock")?;
    if clock.flags & KVM_CLOCK_REALTIME == 0 {
        clock.realtime = time_of_day();
    }
    Ok(clock)
}
