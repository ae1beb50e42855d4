//! Local interrupt pins of the local APIC, as firmware leaves them.

/// Delivery modes (Intel SDM vol. 3A §11.5.1).
const MODE_MASK: u32 = 0x700;
const MODE_NMI: u32 = 0x400;
const MODE_EXTINT: u32 = 0x700;

/// A local pin: the register that says what an interrupt at it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPin {
    /// Where the register is in the APIC's page, in bytes (Intel SDM vol. 3A §11.4.1).
    pub offset: usize,
    mode: u32,
}

/// LINT0 is for external interrupts and LINT1 for NMI, as the MP table says (MP spec 1.4 §4.3.4).
pub const LOCAL_PINS: [LocalPin; 2] = [
    LocalPin {
        offset: 0x350,
        mode: MODE_EXTINT,
    },
    LocalPin {
        offset: 0x360,
        mode: MODE_NMI,
    },
];

impl LocalPin {
    /// The register as firmware leaves it: only the mode changes.
    pub fn wired(&self, register: u32) -> u32 {
        register & !MODE_MASK | self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mode_changes() {
        const MASKED: u32 = 1 << 16;
        let [external, nmi] = LOCAL_PINS;
        assert_eq!(external.wired(MASKED), MASKED | 0x700);
        assert_eq!(nmi.wired(MASKED | 0x3ff), MASKED | 0x4ff);
    }
}
