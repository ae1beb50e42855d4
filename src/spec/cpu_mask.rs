//! CPUID feature bits by name, to hide them from a guest.

use super::Error;
use super::cpu_features::{ALIASES, FEATURES, FeatureBit};
use serde::{Deserialize, Serialize, Serializer};
use std::str::FromStr;

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
        let alias = ALIASES.iter().find(|(alias, _)| *alias == lower);
        let known = alias.map_or(lower.as_str(), |(_, name)| name);
        let bit = FEATURES
            .iter()
            .find(|f| f.name == known)
            .ok_or_else(|| Error::CpuMaskName {
                name: name.trim().into(),
                nearest: super::nearest::nearest(&lower, Self::known_names()),
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

impl Serialize for CpuMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.bits().map(|bit| bit.name))
    }
}

impl FromStr for CpuMask {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut mask = CpuMask::default();
        text.split(',')
            .filter(|name| !name.trim().is_empty())
            .try_for_each(|name| mask.push(name))?;
        match mask.0.is_empty() {
            // Who names nothing expects something to be hidden.
            true => Err(Error::CpuMaskEmpty),
            false => Ok(mask),
        }
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
            .map(|f| (f.leaf, f.subleaf, format!("{:?}", f.register), f.bit))
            .collect();
        assert_eq!(places.len(), FEATURES.len());
        assert!(FEATURES.iter().all(|f| f.bit < 32));
        for (alias, name) in ALIASES {
            assert!(names.contains(name) && !names.contains(alias), "{alias}");
        }
    }

    #[test]
    fn lists_parse_and_a_typo_gets_a_suggestion() {
        let mask: CpuMask = "cx16, AVX2,cx16".parse().unwrap();
        assert_eq!(
            mask.bits().map(|b| b.name).collect::<Vec<_>>(),
            ["cx16", "avx2"]
        );
        let mask: CpuMask = "pni,vmx,kvm_pv_unhalt,tsc_deadline_timer".parse().unwrap();
        assert_eq!(
            mask.bits().map(|b| b.name).collect::<Vec<_>>(),
            ["sse3", "vmx", "kvm_pv_unhalt", "tsc_deadline"]
        );
        let error = "cx61".parse::<CpuMask>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`cx61` is not a CPUID bit that can be masked; did you mean `cx16`?"
        );
        let error = "zzz".parse::<CpuMask>().unwrap_err().to_string();
        assert!(error.contains("flags in /proc/cpuinfo"), "{error}");
        assert!("".parse::<CpuMask>().is_err() && " , ".parse::<CpuMask>().is_err());
    }
}
