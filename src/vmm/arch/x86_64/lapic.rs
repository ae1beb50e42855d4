//! Local interrupt pins of the local APIC, as firmware leaves them.

use kvm_bindings::kvm_lapic_state;

/// Register offsets (Intel SDM vol. 3A §11.4.1).
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
/// Delivery modes (Intel SDM vol. 3A §11.5.1).
const MODE_MASK: u32 = 0x700;
const MODE_NMI: u32 = 0x400;
const MODE_EXTINT: u32 = 0x700;

/// Wires LINT0 to external interrupts and LINT1 to NMI, as the MP table says (MP spec 1.4 §4.3.4).
pub fn set_local_pins(state: &mut kvm_lapic_state) {
    set_mode(state, LVT_LINT0, MODE_EXTINT);
    set_mode(state, LVT_LINT1, MODE_NMI);
}

fn set_mode(state: &mut kvm_lapic_state, register: usize, mode: u32) {
    let mut bytes = [0; 4];
    for (byte, kept) in bytes.iter_mut().zip(&state.regs[register..]) {
        *byte = *kept as u8;
    }
    let value = u32::from_le_bytes(bytes) & !MODE_MASK | mode;
    for (kept, byte) in state.regs[register..].iter_mut().zip(value.to_le_bytes()) {
        *kept = byte as _;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mode_changes() {
        let mut state = kvm_lapic_state::default();
        state.regs[LVT_LINT0 + 2] = 1; // masked
        set_local_pins(&mut state);
        assert_eq!(state.regs[LVT_LINT0..LVT_LINT0 + 4], [0, 7, 1, 0]);
        assert_eq!(state.regs[LVT_LINT1..LVT_LINT1 + 4], [0, 4, 0, 0]);
    }
}
