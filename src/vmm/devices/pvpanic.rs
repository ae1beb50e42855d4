//! pvpanic: a port by which a guest kernel says that it has panicked (QEMU docs/specs/pvpanic.rst).

use super::{Action, Device};

/// Event bit 0: the guest has panicked and will not go on.
const PANICKED: u8 = 1;

/// One byte-wide port; reading it tells which events are understood.
#[derive(Debug, Default)]
pub struct Pvpanic;

impl Device for Pvpanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = PANICKED;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Action {
        match data.first() {
            Some(events) if events & PANICKED != 0 => Action::Panic,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_panic_bit_ends_the_vm() {
        let mut pvpanic = Pvpanic;
        let mut events = [0];
        pvpanic.read(0, &mut events);
        assert_eq!(events, [PANICKED]);
        assert_eq!(pvpanic.write(0, &[PANICKED]), Action::Panic);
        assert_eq!(pvpanic.write(0, &[2]), Action::None);
        assert_eq!(pvpanic.write(0, &[]), Action::None);
    }
}
