//! A memory balloon as a user asks for it.

use super::flag::Flag;
use super::{Error, HugePages, Memory, Setting};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A balloon in guest memory: what it holds, the host has back.
///
/// As text: keys and values with commas between, `size=64M,reporting=off`; the empty text is all defaults. In
/// JSON the keys have underscores: `{"size": "64M", "deflate_on_oom": false}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Balloon {
    /// How much it holds once the guest's driver is up; whole pages of it count. It can be changed while the
    /// VM runs.
    pub size: Memory,
    /// The guest may take memory out of the balloon before it kills a process for want of memory.
    pub deflate_on_oom: bool,
    /// The guest tells which memory is free, and the host takes that back until it is used again.
    pub reporting: bool,
}

impl Default for Balloon {
    fn default() -> Self {
        Self {
            size: Memory::from_bytes(0),
            deflate_on_oom: true,
            reporting: true,
        }
    }
}

impl Balloon {
    /// The most that a balloon can hold of this much guest RAM: all but what a guest has at least.
    pub fn limit(memory: Memory) -> Memory {
        Memory::from_bytes(memory.bytes().saturating_sub(Memory::MIN.bytes()))
    }

    /// Checks a size, now or later.
    ///
    /// # Errors
    /// When it leaves too little of the guest's memory.
    pub fn check_size(size: Memory, memory: Memory) -> Result<(), Error> {
        match size <= Self::limit(memory) {
            true => Ok(()),
            false => Err(Error::BalloonSize { size, memory }),
        }
    }

    pub(super) fn check(
        &self,
        memory: Memory,
        pages: HugePages,
        prefault: bool,
    ) -> Result<(), Error> {
        if pages == HugePages::Reserved {
            return Err(Error::BalloonReserved);
        }
        if prefault && self.reporting {
            return Err(Error::BalloonPrefault);
        }
        Self::check_size(self.size, memory)
    }
}

impl FromStr for Balloon {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let default = Self::default();
        if text.is_empty() {
            return Ok(default);
        }
        let flag = Flag::parse(Setting::Balloon, "a balloon", "size", text)?;
        Ok(Self {
            size: flag.bytes("size")?.unwrap_or(default.size),
            deflate_on_oom: flag.switch_or("deflate-on-oom", default.deflate_on_oom)?,
            reporting: flag.switch_or("reporting", default.reporting)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemorySize, VmConfig, VmConfigBuilder};

    fn balloon(text: &str) -> Result<Balloon, String> {
        text.parse().map_err(|error: Error| error.to_string())
    }

    #[test]
    fn text_and_json_say_the_same() {
        let json = |text| serde_json::from_str::<Balloon>(text).unwrap();
        assert_eq!(balloon(""), Ok(Balloon::default()));
        assert_eq!(json("{}"), Balloon::default());
        let text = balloon("size=64M,deflate-on-oom=off,reporting=off").unwrap();
        let same = r#"{"size": "64M", "deflate_on_oom": false, "reporting": false}"#;
        assert_eq!(text, json(same));
        assert_eq!(text.size, 64.mib());
        assert!(!text.deflate_on_oom && !text.reporting);
        let text = balloon("1G,reporting").unwrap();
        assert_eq!(
            (text.size, text.deflate_on_oom, text.reporting),
            (1.gib(), true, true)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            (
                "sise=1M",
                "a balloon has no key `sise`; did you mean `size`?",
            ),
            ("size=", "`size` of a balloon needs a value: a size"),
            ("size=much", "`size` of a balloon is `much`, not a size"),
            ("much", "`size` of a balloon is `much`, not a size"),
            ("reporting=maybe", "is `maybe`, not on or off"),
            ("1M,size=2M", "a balloon has `size` twice"),
        ] {
            let error = balloon(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = serde_json::from_str::<Balloon>(r#"{"siz": 1}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `siz`"));
    }

    #[test]
    fn a_balloon_fits_its_guest() {
        let base = || VmConfig::builder().kernel("k").memory(64.mib());
        let build = |config: VmConfigBuilder, text: &str| {
            let built = config.balloon(text.parse().unwrap()).build();
            built.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(build(base(), "48M"), Ok(()));
        let error = build(base(), "49M").unwrap_err();
        assert_eq!(
            error,
            "a balloon of 49 MiB leaves less than 16 MiB of the guest's 64 MiB; 48 MiB is the most"
        );
        let reserved = base().huge_pages(HugePages::Reserved);
        assert!(
            build(reserved, "")
                .unwrap_err()
                .contains("reserved huge pages")
        );
        assert_eq!(build(base().huge_pages(HugePages::Transparent), ""), Ok(()));
        let error = build(base().prefault(true), "").unwrap_err();
        assert!(error.contains("free page reporting"), "{error}");
        assert_eq!(build(base().prefault(true), "reporting=off"), Ok(()));
    }
}
