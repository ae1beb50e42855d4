//! Switches KVM's clock on (Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW) and writes `told` to
//! COM1 each time that the clock says that this vCPU has stood still (PVCLOCK_GUEST_STOPPED). With `exits=1` it leaves the
//! guest again and again. Never ends.
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
    println!("ready");
    loop {
        let flags = (clock + FLAGS) as *mut u8;
        // SAFETY: the page is this program's, and KVM's on this vCPU.
        unsafe {
            if flags.read_volatile() & STOPPED != 0 {
                flags.write_volatile(flags.read_volatile() & !STOPPED);
                println!("told");
            }
        }
        if exits {
            serial::try_read();
        }
        core::hint::spin_loop();
    }
}
