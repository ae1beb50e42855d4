//! Switches KVM's clock on (Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW) and writes `told` to
//! COM1 each time that the clock says that this vCPU has stood still (PVCLOCK_GUEST_STOPPED). With `exits=1` it leaves the
//! guest again and again. With `time=1` it writes what the clock says instead, in nanoseconds: `now=N`, the first as it begins. Never ends.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::take_pages;
use kvmlet_guests::{cpu, println, serial};

kvmlet_guests::program!(run);

const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
/// `flags` of `struct pvclock_vcpu_time_info`.
const FLAGS: u64 = 29;
const STOPPED: u8 = 2;

fn run(info: &BootInfo) -> u8 {
    let clock = take_pages(1);
    // SAFETY: the page is for the clock alone.
    unsafe { cpu::write_msr(MSR_KVM_SYSTEM_TIME_NEW, clock | 1) };
    let exits = info.number("exits") == Some(1);
    let time = info.number("time") == Some(1);
    match time {
        true => println!("now={}", now(clock)),
        false => println!("ready"),
    }
    loop {
        let flags = (clock + FLAGS) as *mut u8;
        // SAFETY: the page is this program's, and KVM's on this vCPU.
        unsafe {
            if flags.read_volatile() & STOPPED != 0 {
                flags.write_volatile(flags.read_volatile() & !STOPPED);
                match time {
                    true => println!("now={}", now(clock)),
                    false => println!("told"),
                }
            }
        }
        if exits {
            serial::try_read();
        }
        core::hint::spin_loop();
    }
}

/// What `struct pvclock_vcpu_time_info` says (Linux Documentation/virt/kvm/x86/timekeeping.rst): KVM writes to it on this vCPU alone, so
/// between two instructions of the guest.
fn now(clock: u64) -> u64 {
    const VERSION: u64 = 0;
    const TSC: u64 = 8;
    const SYSTEM_TIME: u64 = 16;
    const MULTIPLIER: u64 = 24;
    const SHIFT: u64 = 28;
    // SAFETY: the page is this program's, and KVM's on this vCPU.
    let read = |offset: u64| unsafe { ((clock + offset) as *const u64).read_unaligned() };
    loop {
        let version = read(VERSION) as u32;
        let (tsc, shift) = (cpu::tsc().wrapping_sub(read(TSC)), read(SHIFT) as i8);
        let scaled = match shift {
            0.. => tsc << shift,
            _ => tsc >> -shift,
        };
        let passed = (u128::from(scaled) * u128::from(read(MULTIPLIER) as u32)) >> 32;
        let now = read(SYSTEM_TIME).wrapping_add(passed as u64);
        if version.is_multiple_of(2) && version == read(VERSION) as u32 {
            return now;
        }
    }
}
