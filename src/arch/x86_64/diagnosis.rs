//! What it usually means when KVM cannot emulate an instruction.

/// How one kind of instruction is recognized: bytes under a mask, after legacy and REX prefixes.
struct Known {
    mask: &'static [u8],
    bytes: &'static [u8],
    name: &'static str,
}

/// Instructions that KVM's emulator is known to lack in supervisor mode (Intel SDM vol. 2 for encodings).
const KNOWN: &[Known] = &[
    Known {
        mask: &[0xff],
        bytes: &[0xcc],
        name: "int3",
    },
    Known {
        mask: &[0xff],
        bytes: &[0x9b],
        name: "fwait",
    },
    Known {
        mask: &[0xff, 0xff],
        bytes: &[0x0f, 0xb8],
        name: "popcnt",
    },
    Known {
        mask: &[0xff, 0xff, 0xff],
        bytes: &[0x0f, 0x01, 0xca],
        name: "clac",
    },
    Known {
        mask: &[0xff, 0xff, 0xff],
        bytes: &[0x0f, 0x01, 0xcb],
        name: "stac",
    },
    Known {
        mask: &[0xff, 0xff, 0xff],
        bytes: &[0x0f, 0x01, 0xc1],
        name: "vmcall",
    },
    Known {
        mask: &[0xff, 0xff, 0xff],
        bytes: &[0x0f, 0x01, 0xd9],
        name: "vmmcall",
    },
    Known {
        mask: &[0xff, 0xff, 0x38],
        bytes: &[0x0f, 0xae, 0x20],
        name: "xsave",
    },
    Known {
        mask: &[0xff, 0xff, 0x38],
        bytes: &[0x0f, 0xae, 0x28],
        name: "xrstor",
    },
    Known {
        mask: &[0xff, 0xff, 0x38],
        bytes: &[0x0f, 0xc7, 0x08],
        name: "cmpxchg16b",
    },
    Known {
        mask: &[0xff, 0xff, 0x38],
        bytes: &[0x0f, 0xc7, 0x18],
        name: "xrstors",
    },
    Known {
        mask: &[0xff, 0xff, 0x38],
        bytes: &[0x0f, 0xc7, 0x20],
        name: "xsavec",
    },
    Known {
        mask: &[0xff, 0xff, 0x38],
        bytes: &[0x0f, 0xc7, 0x28],
        name: "xsaves",
    },
];

/// The mnemonic, if the bytes begin with an instruction that is known to be missing.
pub fn mnemonic(bytes: &[u8]) -> Option<&'static str> {
    let opcode = skip_prefixes(bytes);
    KNOWN
        .iter()
        .find(|known| {
            opcode.len() >= known.bytes.len()
                && known
                    .bytes
                    .iter()
                    .zip(known.mask)
                    .zip(opcode)
                    .all(|((b, m), o)| o & m == *b)
        })
        .map(|known| known.name)
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
    use super::mnemonic;

    #[test]
    fn known_gaps_are_named() {
        for (bytes, name) in [
            (&[0xcc][..], Some("int3")),
            (&[0x9b, 0xd9], Some("fwait")),
            (&[0xf3, 0x48, 0x0f, 0xb8, 0xc7], Some("popcnt")),
            (&[0x0f, 0x01, 0xcb], Some("stac")),
            (&[0x48, 0x0f, 0xae, 0x6f, 0x40], Some("xrstor")),
            (&[0xf0, 0x48, 0x0f, 0xc7, 0x0e], Some("cmpxchg16b")),
            (&[0x90], None),
            (&[0x0f], None),
            (&[0xf0], None),
            (&[], None),
        ] {
            assert_eq!(mnemonic(bytes), name, "{bytes:02x?}");
        }
    }
}
