//! Ways for a guest to end itself.

use crate::interrupts::in_kernel;
use crate::machine::{EXIT_CODE_PORT, PVPANIC_PORT, SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};
use crate::port::outb;

/// i8042 command port.
pub const I8042_COMMAND: u16 = 0x64;

/// pvpanic: the guest has panicked.
const PVPANIC_PANICKED: u8 = 0x01;
/// i8042: pulse the reset line.
pub const I8042_RESET: u8 = 0xfe;

/// Powers off with exit code `code`. A VMM without the power-off port gets a reset request
/// instead, so that the programs also end under other VMMs.
pub fn off(code: u8) -> ! {
    outb(EXIT_CODE_PORT, code);
    outb(SLEEP_CONTROL_PORT, SLEEP_POWER_OFF);
    reset()
}

/// Asks the i8042 to reset the machine.
pub fn reset() -> ! {
    outb(I8042_COMMAND, I8042_RESET);
    stop()
}

/// Tells the VMM through pvpanic that the guest has panicked.
pub fn report_panic() {
    outb(PVPANIC_PORT, PVPANIC_PANICKED);
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
