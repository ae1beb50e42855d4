//! Sets of CPUs of the host: `0,2-3`.

use super::Error;
use super::json_text::text_in_json;
use std::fmt;
use std::str::FromStr;

/// One or more CPUs of the host, by the kernel's numbers.
///
/// Text is the kernel's list format (cpuset(7)): numbers and ranges with commas between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CpuSet(Vec<u16>);

impl CpuSet {
    /// The largest CPU number that Linux on x86 can be built for (NR_CPUS of arch/x86/Kconfig).
    pub const MAX_CPU: u16 = 8191;

    /// The set of these CPUs, if there are any, each once.
    pub fn from_cpus(cpus: impl IntoIterator<Item = u16>) -> Option<Self> {
        let mut cpus: Vec<u16> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        (!cpus.is_empty()).then_some(Self(cpus))
    }

    /// The CPUs, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// How many there are; at least one.
    #[allow(clippy::len_without_is_empty)] // No set is empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is the CPU in the set?
    pub fn contains(&self, cpu: u16) -> bool {
        self.0.binary_search(&cpu).is_ok()
    }

    /// The CPUs that `other` has not, if any.
    pub fn beyond(&self, other: &CpuSet) -> Option<CpuSet> {
        Self::from_cpus(self.iter().filter(|cpu| !other.contains(*cpu)))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for run in self.0.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [first, .., last] => write!(f, "{between}{first}-{last}")?,
                [only] => write!(f, "{between}{only}")?,
                [] => {}
            }
            between = ",";
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why| Error::CpuSet {
            text: text.into(),
            why,
        };
        let number = |text: &str| match text.trim().parse() {
            Ok(cpu @ 0..=Self::MAX_CPU) => Ok(cpu),
            _ => Err(invalid("a CPU is a number from 0 to 8191")),
        };
        if text.trim().is_empty() {
            return Err(invalid("it names no CPU"));
        }
        let mut cpus = Vec::new();
        for item in text.trim().split(',') {
            match item.split_once('-') {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(invalid("a range runs from the lower number to the higher"));
                    }
                    cpus.extend(first..=last);
                }
                None => cpus.push(number(item)?),
            }
        }
        let named = cpus.len();
        match Self::from_cpus(cpus) {
            Some(set) if set.len() == named => Ok(set),
            _ => Err(invalid("it names a CPU twice")),
        }
    }
}

text_in_json!(CpuSet);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_parse_and_print_like_the_kernels() {
        for (text, printed, count) in [
            ("0", "0", 1),
            ("0,2-3", "0,2-3", 3),
            ("3,1,0", "0-1,3", 3),
            (" 5-5 ", "5", 1),
            ("0-8191", "0-8191", 8192),
        ] {
            let set: CpuSet = text.parse().unwrap();
            assert_eq!((set.to_string().as_str(), set.len()), (printed, count));
        }
        for (text, why) in [
            ("", "names no CPU"),
            (",", "0 to 8191"),
            ("0,", "0 to 8191"),
            ("8192", "0 to 8191"),
            ("-1", "0 to 8191"),
            ("1-", "0 to 8191"),
            ("a", "0 to 8191"),
            ("3-1", "from the lower number"),
            ("0,0", "twice"),
            ("0-3,2", "twice"),
        ] {
            let error = text.parse::<CpuSet>().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains(&format!("`{text}`")),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn what_another_set_lacks_is_told() {
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        assert_eq!(set("0-3").beyond(&set("0-1")), Some(set("2-3")));
        assert_eq!(set("1").beyond(&set("0-1")), None);
    }
}
