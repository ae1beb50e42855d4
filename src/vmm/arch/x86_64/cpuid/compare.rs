//! Whether a processor has all that another one had.

use super::Leaf;
use crate::config::{FeatureBit, Register};

/// Where features are: leaf, subleaf, register. What is not among them is about sizes and places, or is kvmlet's own.
const FEATURES: [(u32, u32, Register); 14] = [
    (1, 0, Register::Ecx),
    (1, 0, Register::Edx),
    (7, 0, Register::Ebx),
    (7, 0, Register::Ecx),
    (7, 0, Register::Edx),
    (7, 1, Register::Eax),
    (7, 1, Register::Edx),
    (0xd, 1, Register::Eax),
    (0x4000_0001, 0, Register::Eax),
    (0x8000_0001, 0, Register::Ecx),
    (0x8000_0001, 0, Register::Edx),
    (0x8000_0007, 0, Register::Edx),
    (0x8000_0008, 0, Register::Ebx),
    (0x8000_0021, 0, Register::Eax),
];

/// What a guest sets, and CPUID shows: `osxsave`, `ospke`.
const GUESTS_OWN: [(u32, Register, u32); 2] =
    [(1, Register::Ecx, 1 << 27), (7, Register::Ecx, 1 << 4)];

/// What a processor lacks that another one had, by its name.
pub fn missing(had: &[Leaf], has: &[Leaf]) -> Vec<String> {
    let mut missing = Vec::new();
    if vendor(had) != vendor(has) {
        missing.push(format!("its maker `{}`", vendor(had)));
    }
    for (leaf, subleaf, register) in FEATURES {
        let of = |leaves| value(leaves, leaf, subleaf, register);
        let mut bits = of(had) & !of(has);
        for (own, of, mask) in GUESTS_OWN {
            if (own, of) == (leaf, register) {
                bits &= !mask;
            }
        }
        let bits = (0..32u8).filter(|bit| bits & 1 << bit != 0);
        missing.extend(bits.map(|bit| name(leaf, subleaf, register, bit)));
    }
    missing
}

fn name(leaf: u32, subleaf: u32, register: Register, bit: u8) -> String {
    match FeatureBit::at(leaf, subleaf, register, bit) {
        Some(feature) => feature.name.into(),
        None => format!("bit {bit} of {register:?} of leaf {leaf:#x}.{subleaf}"),
    }
}

fn value(leaves: &[Leaf], function: u32, index: u32, register: Register) -> u32 {
    let found = leaves
        .iter()
        .find(|leaf| (leaf.function, leaf.index) == (function, index));
    found.map_or(0, |leaf| match register {
        Register::Eax => leaf.eax,
        Register::Ebx => leaf.ebx,
        Register::Ecx => leaf.ecx,
        Register::Edx => leaf.edx,
    })
}

/// The name in leaf 0.
fn vendor(leaves: &[Leaf]) -> String {
    let of = |register| value(leaves, 0, 0, register).to_le_bytes();
    let bytes = [Register::Ebx, Register::Edx, Register::Ecx]
        .map(of)
        .concat();
    String::from_utf8_lossy(&bytes).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> Leaf {
        Leaf {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Leaf::default()
        }
    }

    #[test]
    fn what_is_missing_has_a_name() {
        let text = |text: &[u8; 4]| u32::from_le_bytes(*text);
        let maker = |ebx| leaf(0, [0, text(ebx), text(b"ntel"), text(b"ineI")]);
        // Beside what the guest has turned on: osxsave.
        let had = [
            maker(b"Genu"),
            leaf(1, [9, 0, 1 << 28 | 1 << 27 | 1, 1]),
            leaf(7, [0, 1 << 5, 0, 0]),
        ];
        assert!(missing(&had, &had).is_empty());
        let has = [maker(b"Genu"), leaf(1, [8, 7, 1, 3])];
        assert_eq!(missing(&had, &has), ["avx", "avx2"]);
        let more = [
            maker(b"Genu"),
            leaf(1, [8, 7, !0, !0]),
            leaf(7, [0, !0, !0, !0]),
        ];
        assert!(missing(&had, &more).is_empty());
        let other = [maker(b"genu"), had[1], had[2]];
        assert_eq!(missing(&had, &other), ["its maker `GenuineIntel`"]);
    }
}
