//! Ways for a guest to end itself.

use crate::interrupts::in_kernel;
use crate::port::outb;

/// Sleep control register of hardware-reduced ACPI (ACPI 6.5 §4.8.3.7).
pub const SLEEP_CONTROL: u16 = 0x600;
/// kvmlet's exit code latch: the byte written last is the guest's exit code.
pub const EXIT_CODE: u16 = 0x602;
/// pvpanic event port (QEMU docs/specs/pvpanic.rst).
pub const PVPANIC: u16 = 0x505;
/// i8042 command port.
pub const I8042_COMMAND: u16 = 0x64;

/// SLP_EN with sleep type 5.
pub const POWER_OFF: u8 = 0x34;
/// pvpanic: the guest has panicked.
const PVPANIC_PANICKED: u8 = 0x01;
/// i8042: pulse the reset line.
pub const I8042_RESET: u8 = 0xfe;

/// Powers off with exit code `code`. A VMM without the power-off port gets a reset request
/// instead, so that the programs also end under other VMMs.
pub fn off(code: u8) -> ! {
    outb(EXIT_CODE, code);
    outb(SLEEP_CONTROL, POWER_OFF);
    reset()
}

/// Asks the i8042 to reset the machine.
pub fn reset() -> ! {
    outb(I8042_COMMAND, I8042_RESET);
    stop()
}

/// Tells the VMM through pvpanic that the guest has panicked.
pub fn report_panic() {
    outb(PVPANIC, PVPANIC_PANICKED);
}

/// Halts for good with interrupts off.
pub fn stop() -> ! {
    extern "C" fn halt(_: u64) -> u64 {
        // SAFETY: runs at CPL0, where these are allowed; nothing is expected to follow.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
        0
    }
    loop {
        in_kernel(halt, 0);
    }
}
