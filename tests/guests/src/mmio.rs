//! Accesses to physical addresses, each one plain `mov` of the stated width, so that the VMM
//! sees exactly one exit of exactly that width.

use core::arch::asm;

macro_rules! mmio_access {
    ($read:ident, $write:ident, $width:ty, $class:ident, $modifier:literal, $size:literal, $bits:literal) => {
        #[doc = concat!("Reads ", $bits, " bits at physical `address`.")]
        ///
        /// An address that is not mapped ends the program with an exception report.
        #[inline]
        pub fn $read(address: u64) -> $width {
            let value: $width;
            // SAFETY: a load has no effect on Rust's memory; an unmapped address faults.
            unsafe {
                asm!(concat!("mov {value", $modifier, "}, ", $size, " ptr [{address}]"),
                     address = in(reg) address, value = out($class) value,
                     options(nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $bits, " bits at physical `address`.")]
        ///
        /// # Safety
        /// The address must be a device register or memory that Rust does not own.
        #[inline]
        pub unsafe fn $write(address: u64, value: $width) {
            // SAFETY: the caller vouches for the address.
            unsafe {
                asm!(concat!("mov ", $size, " ptr [{address}], {value", $modifier, "}"),
                     address = in(reg) address, value = in($class) value,
                     options(nostack, preserves_flags));
            }
        }
    };
}

mmio_access!(read8, write8, u8, reg_byte, "", "byte", "8");
mmio_access!(read16, write16, u16, reg, ":x", "word", "16");
mmio_access!(read32, write32, u32, reg, ":e", "dword", "32");
mmio_access!(read64, write64, u64, reg, ":r", "qword", "64");

/// Fills `buffer` from physical `address` on, byte by byte.
pub fn read_bytes(address: u64, buffer: &mut [u8]) {
    for (offset, byte) in (0..).zip(buffer) {
        *byte = read8(address + offset);
    }
}
