//! The machine's generation: how a guest's kernel hears that it goes on from a snapshot, before any process of it runs.
//!
//! The generation is 16 random bytes in guest memory, other ones whenever a guest goes on from a snapshot. Here is only the
//! port by which a kernel of kvmlet's own says which interrupt it wants of each CPU then (`kernels/patches`). Others have
//! ACPI's virtual machine generation ID.

use super::{Action, Device};

/// Lower ones are the processor's own exceptions, which a local APIC does not take as interrupts (Intel SDM vol. 3A §11.5.2).
const FIRST_VECTOR: u8 = 16;

/// One byte-wide port.
#[derive(Debug, Default)]
pub struct Generation {
    vector: u8,
}

impl Generation {
    /// The interrupt that the guest wants, if it wants one.
    pub fn vector(&self) -> Option<u8> {
        Some(self.vector).filter(|vector| *vector >= FIRST_VECTOR)
    }

    /// What its register holds.
    pub fn state(&self) -> u8 {
        self.vector
    }

    /// Has its register hold that, as far as a driver could have written it.
    pub fn take_up(&mut self, state: u8) {
        self.vector = if state < FIRST_VECTOR { 0 } else { state };
    }

    /// Number of ports.
    pub const PORTS: u64 = 1;
}

impl Device for Generation {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = self.vector;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Action {
        if let [vector] = data {
            self.take_up(*vector);
        }
        Action::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_that_can_be_one_is_kept() {
        let mut generation = Generation::default();
        assert_eq!(generation.vector(), None);
        for (written, kept) in [(0xf7, Some(0xf7)), (15, None), (16, Some(16)), (0, None)] {
            assert_eq!(generation.write(0, &[written]), Action::None);
            assert_eq!(generation.vector(), kept);
            let mut read = [1, 1];
            generation.read(0, &mut read);
            assert_eq!(read, [kept.unwrap_or(0), 0]);
            let mut other = Generation::default();
            other.take_up(generation.state());
            assert_eq!(other.vector(), kept);
        }
    }

    #[test]
    fn other_widths_do_nothing() {
        let mut generation = Generation::default();
        for data in [&[0xf7, 0][..], &[0xf7; 4], &[]] {
            assert_eq!(generation.write(0, data), Action::None);
            assert_eq!(generation.vector(), None);
        }
    }
}
