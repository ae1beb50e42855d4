//! Prints chosen CPUID leaves as `cpuid LEAF SUBLEAF: EAX EBX ECX EDX`, all in hex.
//!
//! `msr REGISTER: VALUE` is IA32_MISC_ENABLE. A line that starts with `user` is what CPL3 sees of leaf 1: on hosts without hardware
//! virtualization that may be the host's CPU instead of the one that the VMM describes.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::cpu::{self, Cpuid};
use kvmlet_guests::println;

kvmlet_guests::program!(run);

const LEAVES: [(u32, u32); 18] = [
    (0, 0),
    (1, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (0xa, 0),
    (0xb, 0),
    (0xb, 1),
    (cpu::HYPERVISOR_LEAF, 0),
    (cpu::HYPERVISOR_LEAF + 1, 0),
    (cpu::TSC_FREQUENCY_LEAF, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
    (0x8000_000a, 0),
    (0x8000_001f, 0),
    (0x8000_0022, 0),
];

const MISC_ENABLE: u32 = 0x1a0;

fn run(_: &BootInfo) -> u8 {
    for (leaf, subleaf) in LEAVES {
        show("cpuid", leaf, subleaf, cpu::cpuid(leaf, subleaf));
    }
    println!("msr {MISC_ENABLE:x}: {:x}", cpu::read_msr(MISC_ENABLE));
    show("user", 1, 0, cpu::cpuid_here(1, 0));
    0
}

fn show(source: &str, leaf: u32, subleaf: u32, value: Cpuid) {
    let Cpuid { eax, ebx, ecx, edx } = value;
    println!("{source} {leaf:08x} {subleaf:x}: {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}");
}
