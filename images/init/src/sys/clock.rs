//! What time it is, and letting it pass.

use linux_raw_sys::general::*;

use super::{Errno, syscall};

/// As many milliseconds, in the kernel's form.
pub(super) fn duration_ms(ms: u64) -> __kernel_timespec {
    duration_ns(ms.saturating_mul(1_000_000))
}

fn duration_ns(ns: u64) -> __kernel_timespec {
    __kernel_timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    }
}

/// The time on a clock, in nanoseconds.
pub fn clock_ns(clock: u32) -> u64 {
    let mut time = duration_ns(0);
    // SAFETY: the kernel writes one struct.
    let _ = unsafe { call!(__NR_clock_gettime, clock, &raw mut time) };
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

/// Milliseconds since the machine's start.
pub fn monotonic_ms() -> u64 {
    clock_ns(CLOCK_MONOTONIC) / 1_000_000
}

/// Sets the clock of the day.
pub fn set_clock(realtime_ns: u64) -> Result<(), Errno> {
    let time = duration_ns(realtime_ns);
    // SAFETY: the kernel reads one struct.
    unsafe { call!(__NR_clock_settime, CLOCK_REALTIME, &raw const time) }.map(drop)
}

/// Sleeps; a signal may end it early.
pub fn sleep_ms(ms: u32) {
    let time = duration_ms(ms.into());
    // SAFETY: the time outlives the call.
    let _ = unsafe { call!(__NR_nanosleep, &raw const time) };
}
