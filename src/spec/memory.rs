//! Memory sizes and what backs them.

use super::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A memory size in bytes.
///
/// Text is a number with docker's unit letters (`b`, `k`, `m`, `g`, and `t`), all powers of 1024, with or
/// without `iB` or `B` behind: `512M`, `512MiB` and `512mb` are one size, and so are `1.5g` and `1536m`. Without a unit it is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// The least that a guest may have. Linux unpacks, and a small service runs, in this much.
    pub const MIN: Memory = Memory(16 * MIB);
    /// The most that a guest may have; the host's own limits come first on most machines.
    pub const MAX: Memory = Memory(4 * TIB);
    /// What a guest has when nobody says otherwise.
    pub const DEFAULT: Memory = Memory(128 * MIB);

    /// What to add to a message about a size that is most likely one whose unit was forgotten.
    pub(super) fn unit_hint(self) -> &'static str {
        match self.0 < MIB {
            true => "; a number without a unit is bytes: write 512M, or 2G",
            false => "",
        }
    }

    /// A size of this many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in the largest unit of which it is a whole number, if there is one.
    fn in_units(self) -> Option<(u64, &'static str)> {
        let units = [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        let mut whole = units.into_iter();
        let (unit, name) =
            whole.find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit))?;
        Some((self.0 / unit, name))
    }

    /// Is this within the limits and made of whole pages of the kind that back it?
    pub(super) fn check(self, pages: HugePages) -> Result<(), Error> {
        if self < Self::MIN || self > Self::MAX {
            return Err(Error::MemoryRange { size: self });
        }
        let page = pages.page_bytes();
        if !self.0.is_multiple_of(page) {
            return Err(Error::MemoryAlignment {
                bytes: self.0,
                page,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.in_units(), self.0) {
            (Some((number, unit)), _) => write!(f, "{number} {unit}"),
            (None, 1) => write!(f, "1 byte"),
            (None, bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// A decimal number of a unit in bytes, rounded down as docker does.
fn in_bytes(number: &str, unit: u64) -> Option<u64> {
    let (whole, decimals) = match number.split_once('.') {
        // Beyond, no digit is worth a byte.
        Some((whole, decimals)) if unit > 1 && (1..=12).contains(&decimals.len()) => {
            (whole, decimals)
        }
        Some(_) => return None,
        None => (number, ""),
    };
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(decimals.len()).ok()?);
    let scaled: u128 = format!("{whole}{decimals}").parse().ok()?;
    let bytes = scaled.checked_mul(unit.into())? / scale;
    bytes.try_into().ok()
}

impl FromStr for Memory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let syntax = || Error::MemorySyntax { text: text.into() };
        let trimmed = text.trim();
        let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match trimmed[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => KIB,
            "m" | "mb" | "mib" => MIB,
            "g" | "gb" | "gib" => GIB,
            "t" | "tb" | "tib" => TIB,
            _ => return Err(syntax()),
        };
        in_bytes(digits.trim_end(), unit)
            .map(Memory)
            .ok_or_else(syntax)
    }
}

/// Text with a unit where there is a whole number of one, else a number of bytes.
impl Serialize for Memory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.in_units() {
            Some((number, unit)) => serializer.collect_str(&format_args!("{number}{}", &unit[..1])),
            None => serializer.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a memory size must be text such as \"512M\" or a number of bytes"
        )]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Memory(bytes)),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// Readable sizes in code: `128.mib()`, `6.gib()`.
pub trait MemorySize {
    /// This many times 2^20 bytes.
    fn mib(self) -> Memory;
    /// This many times 2^30 bytes.
    fn gib(self) -> Memory;
}

impl MemorySize for u64 {
    fn mib(self) -> Memory {
        Memory(self.saturating_mul(MIB))
    }

    fn gib(self) -> Memory {
        Memory(self.saturating_mul(GIB))
    }
}

/// Which pages back guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// 4 KiB pages, touched on demand.
    #[default]
    Off,
    /// 2 MiB pages where the kernel finds them (`madvise(MADV_HUGEPAGE)`), 4 KiB elsewhere.
    Transparent,
    /// 2 MiB pages from the host's reserved pool (hugetlb); fails where the pool is too small.
    Reserved,
}

impl HugePages {
    /// The unit in which guest RAM must be sized, in bytes.
    pub const fn page_bytes(self) -> u64 {
        match self {
            HugePages::Off | HugePages::Transparent => 4 * KIB,
            HugePages::Reserved => 2 * MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_like_dockers() {
        for (text, bytes) in [
            ("512M", 512 * MIB),
            ("512m", 512 * MIB),
            ("512MiB", 512 * MIB),
            ("2g", 2 * GIB),
            ("16384k", 16 * MIB),
            ("134217728", 128 * MIB),
            (" 1 GiB ", GIB),
            ("1.5g", GIB + GIB / 2),
            ("0.25 GiB", GIB / 4),
            ("0.1k", 102),
        ] {
            assert_eq!(text.parse::<Memory>().unwrap().bytes(), bytes, "{text}");
        }
        for text in [
            "",
            "M",
            "12X",
            "-1M",
            "1.G",
            ".5G",
            "1.5",
            "1.5b",
            "1,5G",
            "+1G",
            "1.+5G",
            "1.0000000000001G",
            "99999999999999G",
            "1MM",
            "é",
        ] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_whole_unit() {
        assert_eq!(6.gib().to_string(), "6 GiB");
        assert_eq!(1536.mib().to_string(), "1536 MiB");
        assert_eq!(Memory::from_bytes(4097).to_string(), "4097 bytes");
        assert_eq!(Memory::from_bytes(1).to_string(), "1 byte");
    }

    #[test]
    fn limits_name_both_ends() {
        let error = 8.mib().check(HugePages::Off).unwrap_err().to_string();
        assert_eq!(
            error,
            "8 MiB of guest memory is outside the limits: 16 MiB to 4 TiB"
        );
        assert!(
            Memory::from_bytes(16 * MIB + 1)
                .check(HugePages::Off)
                .is_err()
        );
        assert!(17.mib().check(HugePages::Reserved).is_err());
        assert!(18.mib().check(HugePages::Reserved).is_ok());
    }
}
