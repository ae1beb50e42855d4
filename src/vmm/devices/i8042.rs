//! Keyboard controller: only its reset line, which is how Linux reboots with `reboot=k`.

use super::{Action, Device};

/// Status and command register.
const COMMAND: u64 = 4;
/// Pulse output line 0, the reset line (IBM PC/AT technical reference, keyboard controller commands).
const PULSE_RESET: u8 = 0xfe;

/// Ports 0x60 to 0x64. No keyboard and no mouse: the status register always says "nothing to read, ready".
#[derive(Debug, Default)]
pub struct I8042;

impl I8042 {
    /// Number of ports.
    pub const PORTS: u64 = 5;
}

impl Device for I8042 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        match (offset, data) {
            (COMMAND, [PULSE_RESET]) => Action::Reset,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_pulse_resets() {
        let mut i8042 = I8042;
        assert_eq!(i8042.write(COMMAND, &[PULSE_RESET]), Action::Reset);
        for (offset, data) in [
            (0, &[PULSE_RESET][..]),
            (COMMAND, &[0xff]),
            (COMMAND, &[0xfe, 0xfe]),
            (9, &[]),
        ] {
            assert_eq!(i8042.write(offset, data), Action::None);
        }
    }
}
