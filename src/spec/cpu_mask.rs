//! CPUID feature bits by name, to hide them from a guest.

use super::Error;
use serde::Deserialize;
use std::str::FromStr;

/// The output register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// One feature bit of subleaf 0: leaf, register and bit number (Intel SDM vol. 2A, CPUID; AMD APM vol. 3 app. E).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureBit {
    /// As Linux has it in /proc/cpuinfo.
    pub name: &'static str,
    /// The leaf.
    pub leaf: u32,
    /// The register of it.
    pub register: Register,
    /// The bit in that, 0 to 31.
    pub bit: u8,
}

macro_rules! features {
    ($($leaf:literal $register:ident { $($name:literal = $bit:literal),* $(,)? })*) => {
        &[$($(FeatureBit {
            name: $name, leaf: $leaf, register: Register::$register, bit: $bit,
        },)*)*]
    };
}

/// Names are those of Linux's /proc/cpuinfo, with the common spelling where it differs.
const FEATURES: &[FeatureBit] = features! {
    0x1 Edx { "fpu" = 0, "tsc" = 4, "pae" = 6, "mce" = 7, "cx8" = 8, "sep" = 11, "mtrr" = 12, "pge" = 13,
        "cmov" = 15, "pat" = 16, "clflush" = 19, "mmx" = 23, "fxsr" = 24, "sse" = 25, "sse2" = 26 }
    0x1 Ecx { "sse3" = 0, "pclmulqdq" = 1, "ssse3" = 9, "fma" = 12, "cx16" = 13, "pcid" = 17,
        "sse4_1" = 19, "sse4_2" = 20, "x2apic" = 21, "movbe" = 22, "popcnt" = 23, "tsc_deadline" = 24,
        "aes" = 25, "xsave" = 26, "avx" = 28, "f16c" = 29, "rdrand" = 30 }
    0x7 Ebx { "fsgsbase" = 0, "bmi1" = 3, "hle" = 4, "avx2" = 5, "smep" = 7, "bmi2" = 8, "erms" = 9,
        "invpcid" = 10, "rtm" = 11, "avx512f" = 16, "avx512dq" = 17, "rdseed" = 18, "adx" = 19, "smap" = 20,
        "avx512ifma" = 21, "clflushopt" = 23, "clwb" = 24, "avx512cd" = 28, "sha_ni" = 29,
        "avx512bw" = 30, "avx512vl" = 31 }
    0x7 Ecx { "avx512vbmi" = 1, "umip" = 2, "pku" = 3, "avx512_vbmi2" = 6, "gfni" = 8, "vaes" = 9,
        "vpclmulqdq" = 10, "avx512_vnni" = 11, "avx512_bitalg" = 12, "avx512_vpopcntdq" = 14, "la57" = 16,
        "rdpid" = 22 }
    0x7 Edx { "fsrm" = 4, "serialize" = 14, "amx_bf16" = 22, "amx_tile" = 24, "amx_int8" = 25 }
    0x80000001 Ecx { "lahf_lm" = 0, "svm" = 2, "lzcnt" = 5, "sse4a" = 6, "3dnowprefetch" = 8 }
    0x80000001 Edx { "nx" = 20, "pdpe1gb" = 26, "rdtscp" = 27 }
};

/// A set of CPUID feature bits to hide, written as names: `cx16,avx512f`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct CpuMask(Vec<&'static FeatureBit>);

impl CpuMask {
    /// The bits, in the order in which they were named.
    pub fn bits(&self) -> impl Iterator<Item = &'static FeatureBit> + '_ {
        self.0.iter().copied()
    }

    /// Every name that can be masked, in the order of the CPUID leaves.
    pub fn known_names() -> impl Iterator<Item = &'static str> + Clone {
        FEATURES.iter().map(|feature| feature.name)
    }

    fn push(&mut self, name: &str) -> Result<(), Error> {
        let lower = name.trim().to_ascii_lowercase();
        let bit = FEATURES
            .iter()
            .find(|f| f.name == lower)
            .ok_or_else(|| Error::CpuMaskName {
                name: name.trim().into(),
                nearest: super::json::nearest(&lower, Self::known_names()),
            })?;
        if !self.0.contains(&bit) {
            self.0.push(bit);
        }
        Ok(())
    }
}

impl TryFrom<Vec<String>> for CpuMask {
    type Error = Error;

    fn try_from(names: Vec<String>) -> Result<Self, Error> {
        let mut mask = CpuMask::default();
        names.iter().try_for_each(|name| mask.push(name))?;
        Ok(mask)
    }
}

impl FromStr for CpuMask {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut mask = CpuMask::default();
        if text.trim().is_empty() {
            mask.push(text)?; // who names nothing expects something to be hidden
        }
        text.split(',')
            .filter(|name| !name.trim().is_empty())
            .try_for_each(|name| mask.push(name))?;
        Ok(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_bits_are_unique() {
        let names: HashSet<_> = CpuMask::known_names().collect();
        assert_eq!(names.len(), FEATURES.len());
        let places: HashSet<_> = FEATURES
            .iter()
            .map(|f| (f.leaf, format!("{:?}", f.register), f.bit))
            .collect();
        assert_eq!(places.len(), FEATURES.len());
        assert!(FEATURES.iter().all(|f| f.bit < 32));
    }

    #[test]
    fn lists_parse_and_a_typo_gets_a_suggestion() {
        let mask: CpuMask = "cx16, AVX2,cx16".parse().unwrap();
        assert_eq!(
            mask.bits().map(|b| b.name).collect::<Vec<_>>(),
            ["cx16", "avx2"]
        );
        let error = "cx61".parse::<CpuMask>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`cx61` is not a CPUID bit that can be masked; did you mean `cx16`?"
        );
    }
}
