//! What it usually means when KVM cannot emulate an instruction.

/// An instruction by its name, and the extension of the architecture that it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The mnemonic, where it is known: many share an encoding's beginning.
    pub mnemonic: Option<&'static str>,
    /// The extension, where it has a name.
    pub set: Option<Set>,
}

/// An extension of the architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// What the manuals call it.
    pub name: &'static str,
    /// Its names for a CPU mask, where a kernel does without when it does not see them.
    pub mask: Option<&'static str>,
}

const fn set(name: &'static str, mask: &'static str) -> Option<Set> {
    let mask = if mask.is_empty() { None } else { Some(mask) };
    Some(Set { name, mask })
}

const BMI1: Option<Set> = set("BMI1", "bmi1,bmi2");
const BMI2: Option<Set> = set("BMI2", "bmi2");
const XSAVE: Option<Set> = set("XSAVE", "");

/// How one kind of instruction is recognized: bytes under a mask, after legacy and REX prefixes.
struct Known {
    mask: &'static [u8],
    bytes: &'static [u8],
    mnemonic: &'static str,
    set: Option<Set>,
}

macro_rules! known {
    ($($mnemonic:literal, $set:expr, [$($mask:literal)*], [$($byte:literal)*];)*) => {
        &[$(Known { mask: &[$($mask),*], bytes: &[$($byte),*], mnemonic: $mnemonic, set: $set },)*]
    };
}

/// Instructions that KVM's emulator is known to lack in supervisor mode (Intel SDM vol. 2 for encodings).
const KNOWN: &[Known] = known! {
    "int3", None, [0xff], [0xcc];
    "fwait", None, [0xff], [0x9b];
    "popcnt", set("POPCNT", ""), [0xff 0xff], [0x0f 0xb8];
    "clac", set("SMAP", ""), [0xff 0xff 0xff], [0x0f 0x01 0xca];
    "stac", set("SMAP", ""), [0xff 0xff 0xff], [0x0f 0x01 0xcb];
    "vmcall", None, [0xff 0xff 0xff], [0x0f 0x01 0xc1];
    "vmmcall", None, [0xff 0xff 0xff], [0x0f 0x01 0xd9];
    "xsave", XSAVE, [0xff 0xff 0x38], [0x0f 0xae 0x20];
    "xrstor", XSAVE, [0xff 0xff 0x38], [0x0f 0xae 0x28];
    "cmpxchg16b", set("CX16", "cx16"), [0xff 0xff 0x38], [0x0f 0xc7 0x08];
    "xrstors", XSAVE, [0xff 0xff 0x38], [0x0f 0xc7 0x18];
    "xsavec", XSAVE, [0xff 0xff 0x38], [0x0f 0xc7 0x20];
    "xsaves", XSAVE, [0xff 0xff 0x38], [0x0f 0xc7 0x28];
    "crc32", set("SSE4.2", "sse4_2"), [0xff 0xff 0xfe], [0x0f 0x38 0xf0];
    "adcx", set("ADX", "adx"), [0xff 0xff 0xff], [0x0f 0x38 0xf6];
    "pclmulqdq", set("PCLMULQDQ", "pclmulqdq"), [0xff 0xff 0xff], [0x0f 0x3a 0x44];
};

/// What the bytes begin with, if that is known to be missing.
pub fn instruction(bytes: &[u8]) -> Option<Instruction> {
    let opcode = skip_prefixes(bytes);
    if let [0xc4 | 0xc5 | 0x62, ..] = opcode {
        return vector_encoded(opcode);
    }
    let known = KNOWN.iter().find(|known| {
        opcode.len() >= known.bytes.len()
            && known
                .bytes
                .iter()
                .zip(known.mask)
                .zip(opcode)
                .all(|((b, m), o)| o & m == *b)
    });
    if let Some(known) = known {
        return Some(Instruction {
            mnemonic: Some(known.mnemonic),
            set: known.set,
        });
    }
    let set = match opcode {
        [0x0f, 0x38, 0xdb..=0xdf, ..] | [0x0f, 0x3a, 0xdf, ..] => set("AES-NI", "aes"),
        [0x0f, 0x38, 0xc8..=0xcd, ..] | [0x0f, 0x3a, 0xcc, ..] => set("SHA", "sha_ni"),
        [0x0f, 0x38, 0x00..=0x41, ..] | [0x0f, 0x3a, 0x08..=0x63, ..] => {
            set("SSSE3 or SSE4", "ssse3,sse4_1,sse4_2")
        }
        _ => return None,
    };
    Some(Instruction {
        mnemonic: None,
        set,
    })
}

/// Encodings by a VEX or EVEX prefix (Intel SDM vol. 2A §2.3, §2.7), none of which KVM's emulator knows. General
/// registers have them since BMI, all else are vectors.
fn vector_encoded(bytes: &[u8]) -> Option<Instruction> {
    let of = |mnemonic, set| Some(Instruction { mnemonic, set });
    let &[0xc4, map, third, opcode, ..] = bytes else {
        return match bytes {
            [0x62, ..] => of(None, set("AVX-512", "avx512f")),
            [0xc5, _, _, ..] => of(None, set("AVX", "avx,avx2")),
            _ => None,
        };
    };
    // What a prefix says elsewhere: 0 nothing, 1 0x66, 2 0xf3, 3 0xf2.
    let (mnemonic, set) = match (map & 0x1f, opcode, third & 3) {
        (2, 0xf2, 0) => ("andn", BMI1),
        (2, 0xf3, 0) => ("blsr", BMI1),
        (2, 0xf7, 0) => ("bextr", BMI1),
        (2, 0xf5, 0) => ("bzhi", BMI2),
        (2, 0xf5, 2) => ("pext", BMI2),
        (2, 0xf5, 3) => ("pdep", BMI2),
        (2, 0xf6, 3) => ("mulx", BMI2),
        (2, 0xf7, 1) => ("shlx", BMI2),
        (2, 0xf7, 2) => ("sarx", BMI2),
        (2, 0xf7, 3) => ("shrx", BMI2),
        (3, 0xf0, 3) => ("rorx", BMI2),
        _ => return of(None, set("AVX", "avx,avx2")),
    };
    of(Some(mnemonic), set)
}

/// Legacy prefixes in any order, then at most one REX prefix (Intel SDM vol. 2A §2.1.1, §2.2.1).
fn skip_prefixes(bytes: &[u8]) -> &[u8] {
    const LEGACY: [u8; 11] = [
        0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x66, 0x67,
    ];
    let legacy = bytes
        .iter()
        .take_while(|byte| LEGACY.contains(byte))
        .count();
    let rex = usize::from(bytes.get(legacy).is_some_and(|byte| byte & 0xf0 == 0x40));
    &bytes[legacy + rex..]
}

#[cfg(test)]
mod tests {
    use super::instruction;

    #[test]
    fn known_gaps_are_named() {
        // Encodings are those of an assembler.
        for (bytes, mnemonic, set) in [
            (&[0xcc][..], Some("int3"), None),
            (&[0x9b, 0xd9], Some("fwait"), None),
            (
                &[0xf3, 0x48, 0x0f, 0xb8, 0xc7],
                Some("popcnt"),
                Some("POPCNT"),
            ),
            (&[0x0f, 0x01, 0xcb], Some("stac"), Some("SMAP")),
            (
                &[0x48, 0x0f, 0xae, 0x6f, 0x40],
                Some("xrstor"),
                Some("XSAVE"),
            ),
            (
                &[0xf0, 0x48, 0x0f, 0xc7, 0x0e],
                Some("cmpxchg16b"),
                Some("CX16"),
            ),
            (
                &[0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc1],
                Some("crc32"),
                Some("SSE4.2"),
            ),
            (&[0xc4, 0xe2, 0xe8, 0xf2, 0xc1], Some("andn"), Some("BMI1")),
            (&[0xc4, 0xe2, 0xf9, 0xf7, 0xc1], Some("shlx"), Some("BMI2")),
            (&[0xc4, 0xe2, 0xf3, 0xf6, 0xc1], Some("mulx"), Some("BMI2")),
            (
                &[0xc4, 0xe3, 0xfb, 0xf0, 0xc1, 3],
                Some("rorx"),
                Some("BMI2"),
            ),
            (&[0xc4, 0xe2, 0xf0, 0xf5, 0xc1], Some("bzhi"), Some("BMI2")),
            (&[0xc5, 0xf8, 0x77], None, Some("AVX")),
            (&[0xc4, 0xe2, 0x7d, 0x78, 0xc1], None, Some("AVX")),
            (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x07], None, Some("AVX-512")),
            (&[0x66, 0x0f, 0x38, 0xdc, 0xc1], None, Some("AES-NI")),
            (&[0x66, 0x0f, 0x38, 0x00, 0xc1], None, Some("SSSE3 or SSE4")),
        ] {
            let found = instruction(bytes).unwrap();
            assert_eq!(found.mnemonic, mnemonic, "{bytes:02x?}");
            assert_eq!(found.set.map(|set| set.name), set, "{bytes:02x?}");
        }
        for bytes in [&[0x90][..], &[0x0f], &[0xf0], &[0xc4, 0xe2], &[]] {
            assert_eq!(instruction(bytes), None, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_can_be_masked_has_these_names() {
        for bytes in [
            &[0xc4, 0xe2, 0xf9, 0xf7, 0xc1][..],
            &[0xc4, 0xe2, 0xe8, 0xf2, 0xc1],
            &[0xc5, 0xf8, 0x77],
            &[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x07],
            &[0x66, 0x0f, 0x38, 0xdc, 0xc1],
            &[0x66, 0x0f, 0x38, 0x00, 0xc1],
            &[0x0f, 0x38, 0xc8, 0xc1],
            &[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0],
            &[0x66, 0x0f, 0x38, 0xf6, 0xc1],
            &[0xf0, 0x48, 0x0f, 0xc7, 0x0e],
        ] {
            let mask = instruction(bytes).unwrap().set.unwrap().mask.unwrap();
            assert!(mask.parse::<crate::config::CpuMask>().is_ok(), "{mask}");
        }
    }
}
