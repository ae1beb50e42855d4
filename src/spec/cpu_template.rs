//! CPUs that are to look other than KVM and kvmlet have them: bits of CPUID and of model-specific registers.

use super::{Error, Register};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Some bits of a register, and what they are to be; the others stay. Written as `0b`, and `0`, `1` or `x` for each from
/// the highest on: `0b1x0` sets bit 2, clears bit 0, and leaves all else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BitChange {
    named: u64,
    set: u64,
}

impl BitChange {
    /// Reads the text form, of a register of `width` bits.
    ///
    /// # Errors
    /// Anything else, with the text.
    pub fn parse(text: &str, width: u32) -> Result<Self, Error> {
        let wrong = || CpuTemplateError::Bits {
            text: text.into(),
            width,
        };
        let bits = text.strip_prefix("0b").ok_or_else(wrong)?;
        let (mut change, mut place) = (Self::default(), 0);
        for char in bits.bytes().rev().filter(|char| *char != b'_') {
            if place == width {
                return Err(wrong().into());
            }
            let (named, set) = match char {
                b'0' => (1, 0),
                b'1' => (1, 1),
                b'x' => (0, 0),
                _ => return Err(wrong().into()),
            };
            change.named |= named << place;
            change.set |= set << place;
            place += 1;
        }
        match place {
            0 => Err(wrong().into()),
            _ => Ok(change),
        }
    }

    /// What is in the register then.
    pub fn of(self, value: u64) -> u64 {
        value & !self.named | self.set
    }
}

impl fmt::Display for BitChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0b")?;
        let places = (u64::BITS - self.named.leading_zeros()).max(1);
        (0..places).rev().try_for_each(|place| {
            f.write_str(match (self.named >> place & 1, self.set >> place & 1) {
                (0, _) => "x",
                (_, 0) => "0",
                _ => "1",
            })
        })
    }
}

/// What a guest is to see of CPUID: `LEAF[.SUBLEAF]:REGISTER=BITS`, such as `0x7.0:ebx=0b0xxxx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CpuidChange {
    /// What is asked for, in EAX.
    pub leaf: u32,
    /// And in ECX.
    pub subleaf: u32,
    /// Where the answer is.
    pub register: Register,
    /// And what it is to be, in the lower 32 bits.
    pub bits: BitChange,
}

/// What a model-specific register is to have in it when the guest begins: `REGISTER=BITS`, such as `0x277=0b110`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MsrChange {
    index: u32,
    bits: BitChange,
}

/// The counters and modes that a VM begins with; boot protocols, restores and local APICs have them.
const OWN: [u32; 6] = [0x10, 0x1b, 0x6e0, 0xc000_0080, 0xc000_0100, 0xc000_0101];

impl MsrChange {
    /// A change of the register with that number.
    ///
    /// # Errors
    /// Registers that are not features of a CPU but what it does just now: time-stamp counter and its deadline, the
    /// local APIC's place, EFER, the bases of FS and GS.
    pub fn new(index: u32, bits: BitChange) -> Result<Self, Error> {
        match OWN.contains(&index) {
            true => Err(CpuTemplateError::Own { index }.into()),
            false => Ok(Self { index, bits }),
        }
    }

    /// The register's number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What becomes of it.
    pub fn bits(&self) -> BitChange {
        self.bits
    }
}

/// Bits that have a guest see VT-x or SVM.
const NESTED: [(u32, u64); 2] = [(1, 1 << 5), (0x8000_0001, 1 << 2)];

/// Nobody gets by a bit of CPUID what has a setting of its own.
pub(super) fn check(changes: &[CpuidChange], nested: bool) -> Result<(), Error> {
    let shows = |change: &CpuidChange| {
        let here = (change.leaf, change.subleaf, change.register);
        let mut bits = NESTED
            .iter()
            .map(|(leaf, bit)| ((*leaf, 0, Register::Ecx), bit));
        bits.any(|(place, bit)| here == place && change.bits.set & bit != 0)
    };
    match !nested && changes.iter().any(shows) {
        true => Err(CpuTemplateError::Nested.into()),
        false => Ok(()),
    }
}

/// What is wrong with such a change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuTemplateError {
    /// Something else than bits.
    #[error("`{}` is not bits of a register: `0b`, and then `0`, `1` or `x` for each, {width} at the most", .text.escape_debug())]
    Bits {
        /// What the user wrote.
        text: String,
        /// How many there can be.
        width: u32,
    },
    /// Something else than a place in CPUID and its bits.
    #[error("`{}` does not change CPUID (write LEAF[.SUBLEAF]:REGISTER=BITS, such as 0x7.0:ebx=0b0xxxx)", .text.escape_debug())]
    Cpuid {
        /// What the user wrote.
        text: String,
    },
    /// Something else than a register and its bits.
    #[error("`{}` does not change a model-specific register (write REGISTER=BITS, such as 0x277=0b110)", .text.escape_debug())]
    Msr {
        /// What the user wrote.
        text: String,
    },
    /// A register that no template has.
    #[error(
        "the model-specific register {index:#x} is not a feature of the CPU but what it does just now, and cannot be chosen"
    )]
    Own {
        /// Its number.
        index: u32,
    },
    /// A way around a setting.
    #[error("VT-x and SVM are not shown by a bit of CPUID alone")]
    Nested,
}

/// Of a number as manuals write it (`0x7`, `0b111`), or a decimal one.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix("0b")) {
        (Some(hex), _) => (hex, 16),
        (_, Some(binary)) => (binary, 2),
        _ => (text, 10),
    };
    // Rust would take a sign.
    let digits = digits.strip_prefix('+').map_or(digits, |_| "");
    u32::from_str_radix(digits, radix).ok()
}

const REGISTERS: [(&str, Register); 4] = [
    ("eax", Register::Eax),
    ("ebx", Register::Ebx),
    ("ecx", Register::Ecx),
    ("edx", Register::Edx),
];

impl FromStr for CpuidChange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = || {
            let (place, bits) = text.split_once('=')?;
            let (leaf, register) = place.split_once(':')?;
            let (leaf, subleaf) = leaf.split_once('.').unwrap_or((leaf, "0"));
            let known = REGISTERS.iter().find(|(name, _)| *name == register)?;
            Some((number(leaf)?, number(subleaf)?, known.1, bits))
        };
        let wrong = || CpuTemplateError::Cpuid { text: text.into() };
        let (leaf, subleaf, register, bits) = parts().ok_or_else(wrong)?;
        Ok(Self {
            leaf,
            subleaf,
            register,
            bits: BitChange::parse(bits, u32::BITS)?,
        })
    }
}

impl FromStr for MsrChange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || CpuTemplateError::Msr { text: text.into() };
        let (index, bits) = text.split_once('=').ok_or_else(wrong)?;
        let index = number(index).ok_or_else(wrong)?;
        Self::new(index, BitChange::parse(bits, u64::BITS)?)
    }
}

impl fmt::Display for CpuidChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (leaf, subleaf, bits) = (self.leaf, self.subleaf, self.bits);
        let known = REGISTERS.iter().find(|(_, it)| *it == self.register);
        let register = known.map_or("", |(name, _)| name);
        write!(f, "{leaf:#x}.{subleaf:#x}:{register}={bits}")
    }
}

impl fmt::Display for MsrChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}={}", self.index, self.bits)
    }
}

macro_rules! as_text {
    ($($change:ty),*) => { $(
        impl TryFrom<String> for $change {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl Serialize for $change {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}

as_text!(CpuidChange, MsrChange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_are_named_change_and_no_others() {
        for (text, before, after) in [
            ("0b1", 0b0110, 0b0111),
            ("0bx0_1x", 0b1100, 0b1010),
            ("0bxxxx", 5, 5),
            ("0b0_x_1_0", 0b1111, 0b0110),
        ] {
            let bits = BitChange::parse(text, 4).unwrap();
            assert_eq!(bits.of(before), after, "{text}");
            assert_eq!(BitChange::parse(&bits.to_string(), 4).unwrap(), bits);
        }
        let most = BitChange::parse(&format!("0b{}", "1".repeat(64)), 64).unwrap();
        assert_eq!(most.of(0), u64::MAX);
        for text in [
            "", "0b", "0b_", "101", "0b2", "0bX", "0b10101", "0b1 0", "0bé",
        ] {
            let error = BitChange::parse(text, 4).unwrap_err().to_string();
            assert!(error.contains("4 at the most"), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for text in [
            "0x1.0x0:ecx=0b0xxx",
            "0x80000008.0x2:eax=0b1",
            "0x4.0x3:edx=0bx",
        ] {
            assert_eq!(text.parse::<CpuidChange>().unwrap().to_string(), text);
        }
        let same: CpuidChange = "7:ebx=0b01".parse().unwrap();
        assert_eq!(same, "0b111.0:ebx=0b01".parse().unwrap());
        let msr: MsrChange = "266=0b1".parse().unwrap();
        assert_eq!(msr.to_string(), "0x10a=0b1");
        for text in [
            "",
            "1",
            "1:ecx",
            "1:cx=0b1",
            "1.:ecx=0b1",
            "+1:ecx=0b1",
            "0x:ecx=0b1",
            "1:ecx=1",
            "0x100000000:eax=0b1",
            "-1:ecx=0b1",
        ] {
            assert!(text.parse::<CpuidChange>().is_err(), "{text}");
        }
        for text in ["", "0x10a", "0x10a=", "0x10a=1", "x=0b1", "0x+1=0b1"] {
            assert!(text.parse::<MsrChange>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_state_and_what_has_a_setting_is_refused() {
        for text in ["0x10=0b1", "0xc0000080=0b1"] {
            let error = text.parse::<MsrChange>().unwrap_err().to_string();
            assert!(error.contains("what it does just now"), "{error}");
        }
        let changes = |text: &str| vec![text.parse::<CpuidChange>().unwrap()];
        for text in ["1:ecx=0b1xxxxx", "0x80000001:ecx=0b1xx"] {
            assert!(check(&changes(text), false).is_err(), "{text}");
            check(&changes(text), true).unwrap();
        }
        for text in ["1:ecx=0b0xxxxx", "1:edx=0b1xxxxx", "1.1:ecx=0b1xxxxx"] {
            check(&changes(text), false).unwrap();
        }
    }
}
