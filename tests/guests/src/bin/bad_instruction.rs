//! Executes at CPL0 an instruction that KVM's emulator cannot do: `which=fwait` (the
//! default), `popcnt`, `shlx` or `int3`. Where KVM interprets CPL0 code, KVM_RUN fails with an
//! internal error; on hardware the program survives and ends with 0, except that `int3` is
//! an unexpected exception there.
#![no_std]
#![no_main]

use core::arch::asm;

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::interrupts::in_kernel;
use kvmlet_guests::println;

kvmlet_guests::program!(run);

fn run(info: &BootInfo) -> u8 {
    let which = info.option("which").unwrap_or("fwait");
    println!("{which}");
    match which {
        "fwait" => in_kernel(fwait, 0),
        "popcnt" => in_kernel(popcnt, 0),
        "shlx" => in_kernel(shlx, 0),
        "int3" => in_kernel(int3, 0),
        _ => panic!("command line: which={which} is not one of fwait, popcnt, shlx, int3"),
    };
    println!("survived");
    0
}

extern "C" fn fwait(_: u64) -> u64 {
    // SAFETY: waits for the FPU, which has no exception pending.
    unsafe { asm!("fwait", options(nomem, nostack)) };
    0
}

extern "C" fn popcnt(value: u64) -> u64 {
    let ones;
    // SAFETY: computes in registers.
    unsafe { asm!("popcnt {}, {}", out(reg) ones, in(reg) value, options(nomem, nostack)) };
    ones
}

extern "C" fn shlx(value: u64) -> u64 {
    let shifted;
    // SAFETY: computes in registers.
    unsafe {
        asm!("shlx {}, {}, {}", out(reg) shifted, in(reg) value, in(reg) value,
             options(nomem, nostack));
    }
    shifted
}

extern "C" fn int3(_: u64) -> u64 {
    // SAFETY: raises an exception, which ends the program.
    unsafe { asm!("int3") };
    0
}
