//! Runtime of the bare-metal guests that the tests and benchmarks of kvmlet boot.
//!
//! `cargo build -p kvmlet-guests --release --features virtio` builds one static ELF file per
//! program in `src/bin/`, without the feature all but the `virtio_*` ones; the build script
//! adds what the linker has to know. A program is entered by
//! the Linux 64-bit boot protocol or by PVH, drops to CPL3 within about forty instructions
//! (see [`entry`]) and stays there, with all RAM and the device window below 4 GiB identity
//! mapped and every I/O port open. What needs CPL0 goes through
//! [`interrupts::in_kernel`].
//!
//! A program ends by returning its exit code, which [`power::off`] hands to the VMM; a panic
//! ends with 101 and an unexpected exception with 102, both described on COM1.
//!
//! With the cargo feature `pvh` every program carries the PVH note too, for VMMs that load
//! ELF files by PVH only (QEMU).
#![no_std]

#[cfg(feature = "virtio")]
extern crate alloc;

/// What a host and its guests agree on. Of the contract this file alone: all of it needs an allocator, which not every
/// program here has.
#[path = "../../../images/contract/src/machine.rs"]
pub mod machine;

pub mod acpi;
#[cfg(feature = "virtio")]
mod allocator;
pub mod boot_info;
pub mod cpu;
#[cfg(feature = "virtio")]
pub mod echo;
pub mod entry;
#[cfg(feature = "virtio")]
pub mod ethernet;
pub mod heap;
pub mod interrupts;
pub mod ioapic;
pub mod lapic;
pub mod libc_symbols;
pub mod mmio;
pub mod mp_table;
#[cfg(feature = "virtio")]
pub mod pci;
pub mod port;
pub mod power;
pub mod raw_device;
pub mod serial;
pub mod smp;
#[cfg(feature = "virtio")]
pub mod virtio;
#[cfg(feature = "virtio")]
pub mod wire;

use boot_info::{BootInfo, Protocol};

/// Exit code of a program that panicked.
pub const EXIT_PANIC: u8 = 101;
/// Exit code of a program that met an exception it has no handler for.
pub const EXIT_EXCEPTION: u8 = 102;

/// First Rust code, at CPL3 with .bss cleared: maps the rest of RAM, fills the IDT and
/// runs the program.
#[unsafe(no_mangle)]
extern "C" fn guest_start(handed_over: u64, pvh: u32) -> ! {
    unsafe extern "Rust" {
        fn guest_main(info: &'static BootInfo) -> u8;
    }
    interrupts::fill_idt();
    let protocol = if pvh == 1 {
        Protocol::Pvh
    } else {
        Protocol::Linux64
    };
    let info = BootInfo::new(protocol, handed_over);
    // SAFETY: this function never returns, so the value lives as long as the program.
    let info: &'static BootInfo = unsafe { &*core::ptr::from_ref(&info) };
    heap::take_rest_of_image_ram(info);
    heap::map_above_4_gib(info);
    // SAFETY: `program!` defines it with this signature.
    let code = unsafe { guest_main(info) };
    power::off(code)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("guest {info}");
    power::off(EXIT_PANIC)
}
