//! Port I/O, open to CPL3 through the TSS's I/O permission bitmap.
//!
//! These are safe functions: no port of a kvmlet guest makes a device write to memory, but for the one that
//! saves registers, which only `fpu_ports` writes to.

use core::arch::asm;

macro_rules! port_access {
    ($read:ident, $write:ident, $width:ty, $register:tt, $bits:literal) => {
        #[doc = concat!("Reads ", $bits, " bits from `port`.")]
        #[inline]
        pub fn $read(port: u16) -> $width {
            let value: $width;
            // SAFETY: reads a device register, touches no memory.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                     options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $bits, " bits to `port`.")]
        #[inline]
        pub fn $write(port: u16, value: $width) {
            // SAFETY: writes a device register; no device of these guests answers a port
            // write by writing to memory.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                     options(nostack, preserves_flags));
            }
        }
    };
}

port_access!(inb, outb, u8, "al", "8");
port_access!(inw, outw, u16, "ax", "16");
port_access!(inl, outl, u32, "eax", "32");
