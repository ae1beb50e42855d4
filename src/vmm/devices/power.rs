//! Power-off by ACPI's sleep control register, and the exit code of the service inside.

use super::{Action, Device};
use kvmlet_contract::machine::{EXIT_CODE_PORT, SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};

const SLEEP_CONTROL: u64 = 0;
/// The sleep type, and the bit that makes it happen; there is only one type.
const SLEEP: u8 = 7 << 2 | 1 << 5;
/// kvmlet's own register: the guest's init leaves the exit code of its service here.
const EXIT_CODE: u64 = (EXIT_CODE_PORT - SLEEP_CONTROL_PORT) as u64;

/// Three byte-wide ports: sleep control, sleep status, exit code.
///
/// The exit code has no effect by itself; it is what a power-off that follows reports.
#[derive(Debug, Default)]
pub struct Power {
    exit_code: u8,
}

impl Power {
    /// The exit code that the guest has left.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// One where a guest has left that exit code.
    pub fn leave(&mut self, exit_code: u8) {
        self.exit_code = exit_code;
    }

    /// Number of ports.
    pub const PORTS: u64 = 3;
}

impl Device for Power {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (EXIT_CODE, [byte]) = (offset, data) {
            *byte = self.exit_code;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        match (offset, data) {
            (SLEEP_CONTROL, [value]) if value & SLEEP == SLEEP_POWER_OFF => {
                return Action::ShutDown {
                    code: self.exit_code,
                };
            }
            (EXIT_CODE, [code]) => self.exit_code = *code,
            _ => {}
        }
        Action::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: u8 = 5 << 2 | ENABLE;
    const ENABLE: u8 = 1 << 5;

    #[test]
    fn power_off_reports_the_code_left_before() {
        let mut power = Power::default();
        assert_eq!(
            power.write(SLEEP_CONTROL, &[OFF]),
            Action::ShutDown { code: 0 }
        );
        assert_eq!(power.write(EXIT_CODE, &[7]), Action::None);
        assert_eq!(
            power.write(SLEEP_CONTROL, &[OFF]),
            Action::ShutDown { code: 7 }
        );
    }

    #[test]
    fn other_sleep_states_and_widths_do_nothing() {
        let mut power = Power::default();
        for data in [&[OFF & !ENABLE][..], &[ENABLE | 3 << 2], &[OFF, 0], &[]] {
            assert_eq!(power.write(SLEEP_CONTROL, data), Action::None);
        }
        assert_eq!(power.write(1, &[OFF]), Action::None);
    }
}
