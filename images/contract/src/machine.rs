//! Ports and pins of the machine that are not those of every PC. Guest kernels of kvmlet's own know them from
//! `kernels/patches`, others from ACPI tables.

/// I/O port of the sleep control register (ACPI 6.5 §4.8.3.7); see [`SLEEP_POWER_OFF`]. The next one is its status.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// I/O port that takes the service's exit code, one byte, before the guest powers off.
pub const EXIT_CODE_PORT: u16 = 0x602;
/// `SLP_TYPx` for S5, as the DSDT gives it in `\_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Written to [`SLEEP_CONTROL_PORT`] to power off: SLP_TYP in bits 2 to 4 and SLP_EN, bit 5.
pub const SLEEP_POWER_OFF: u8 = SLEEP_TYPE_OFF << 2 | 1 << 5;
/// I/O port of pvpanic (QEMU docs/specs/pvpanic.rst).
pub const PVPANIC_PORT: u16 = 0x505;
/// Pin of the I/O APIC that the power button is at: what a second serial port would have.
pub const POWER_BUTTON_PIN: u32 = 3;
/// Where in guest memory the machine's generation is: 16 random bytes, other ones whenever the guest goes on from a snapshot.
pub const GENERATION_ADDRESS: u64 = 0xe_f000;
/// I/O port that takes the vector by which each CPU is interrupted then, before it executes anything else.
pub const GENERATION_PORT: u16 = 0x506;
/// Pin of the I/O APIC that is interrupted then for ACPI's sake: what a keyboard would have.
pub const GENERATION_PIN: u32 = 1;
/// Guest physical address of the boot timer (Firecracker's), to which a guest writes when it is ready.
pub const BOOT_TIMER_ADDRESS: u64 = 0xd000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What kvmlet's own guest kernels are patched with.
    const PATCHES: [&str; 2] = [
        include_str!("../../../kernels/patches/0012-x86-kvm-power-and-panic-ports.patch"),
        include_str!(
            "../../../kernels/patches/0015-x86-kvm-renew-random-numbers-of-restored-guests.patch"
        ),
    ];

    /// What the patches define a name as.
    fn defined(name: &str) -> &'static str {
        let lines = PATCHES.iter().flat_map(|patch| patch.lines());
        let mut lines = lines.filter_map(|line| {
            let (found, value) = line.strip_prefix("+#define ")?.split_once('\t')?;
            (found.trim() == name).then(|| value.trim())
        });
        lines.next().expect(name)
    }

    fn number(text: &str) -> u32 {
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).expect(text),
            None => text.parse().expect(text),
        }
    }

    #[test]
    fn patched_kernels_agree() {
        assert_eq!(
            number(defined("SLEEP_CONTROL_PORT")),
            u32::from(SLEEP_CONTROL_PORT)
        );
        assert_eq!(number(defined("PVPANIC_PORT")), u32::from(PVPANIC_PORT));
        assert_eq!(number(defined("POWER_BUTTON_IRQ")), POWER_BUTTON_PIN);
        let address = u64::from(number(defined("GENERATION_ADDRESS")));
        assert_eq!(address, GENERATION_ADDRESS);
        let port = number(defined("GENERATION_PORT"));
        assert_eq!(port, u32::from(GENERATION_PORT));
        assert_eq!(defined("GENERATION_BYTES"), "16");
        assert_eq!(defined("SLEEP_ENABLE"), "BIT(5)");
        let kind = defined("SLEEP_TYPE_S5").trim_matches(['(', ')']);
        let (kind, shift) = kind.split_once(" << ").expect("a shifted type");
        let written = number(kind) << number(shift) | 1 << 5;
        assert_eq!(number(kind), u32::from(SLEEP_TYPE_OFF));
        assert_eq!(written, u32::from(SLEEP_POWER_OFF));
    }
}
