//! How much of a disk or an interface a guest may use per second.

use super::{Error, Memory};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// A steady rate with room for bursts (a token bucket), in bytes or in operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU64,
    burst: NonZeroU64,
    once: u64,
}

impl Rate {
    /// This much per second, with bursts of a tenth of that.
    ///
    /// # Errors
    /// Zero: a device that may do nothing is better left out.
    pub fn per_second(amount: u64) -> Result<Self, Error> {
        let per_second = NonZeroU64::new(amount).ok_or(Error::RateZero)?;
        let burst = NonZeroU64::new(amount / 10).unwrap_or(NonZeroU64::MIN);
        Ok(Self {
            per_second,
            burst,
            once: 0,
        })
    }

    /// This much may pass at once after a pause; at least 1.
    pub fn burst(mut self, amount: u64) -> Self {
        self.burst = NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN);
        self
    }

    /// This much more may pass at full speed, one time only: for booting, say.
    pub fn once(mut self, amount: u64) -> Self {
        self.once = amount;
        self
    }

    /// Amount per second, burst, and what may pass once.
    pub fn parts(self) -> (NonZeroU64, NonZeroU64, u64) {
        (self.per_second, self.burst, self.once)
    }
}

/// Limits for one disk, or for one direction of an interface. Without any, nothing is held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct RateLimit {
    /// Bytes.
    pub bandwidth: Option<Rate>,
    /// Requests of a disk, packets of an interface.
    pub operations: Option<Rate>,
}

impl RateLimit {
    /// No limit at all.
    pub const NONE: Self = Self {
        bandwidth: None,
        operations: None,
    };

    pub(super) fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// The keys of a limit as a user writes them; a burst without a rate limits nothing and is refused.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub once: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_once: Option<u64>,
}

impl Written {
    /// The limit, where the keys of its rates are called `bandwidth` and `operations`.
    pub fn limit(
        self,
        bandwidth: &'static str,
        operations: &'static str,
    ) -> Result<RateLimit, Error> {
        let bytes = |size: Option<Memory>| size.map(Memory::bytes);
        Ok(RateLimit {
            bandwidth: rate(
                bytes(self.bandwidth),
                bytes(self.burst),
                bytes(self.once),
                bandwidth,
            )?,
            operations: rate(
                self.operations,
                self.operations_burst,
                self.operations_once,
                operations,
            )?,
        })
    }
}

impl TryFrom<Written> for RateLimit {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        written.limit("bandwidth", "operations")
    }
}

impl From<RateLimit> for Written {
    fn from(limit: RateLimit) -> Self {
        let (bandwidth, burst, once) = parts(limit.bandwidth);
        let (operations, operations_burst, operations_once) = parts(limit.operations);
        Self {
            bandwidth: bandwidth.map(Memory::from_bytes),
            burst: burst.map(Memory::from_bytes),
            once: once.map(Memory::from_bytes),
            operations,
            operations_burst,
            operations_once,
        }
    }
}

/// A rate as it would be written.
fn parts(rate: Option<Rate>) -> (Option<u64>, Option<u64>, Option<u64>) {
    let Some((per_second, burst, once)) = rate.map(Rate::parts) else {
        return (None, None, None);
    };
    let once = Some(once).filter(|once| *once > 0);
    (Some(per_second.get()), Some(burst.get()), once)
}

fn rate(
    per_second: Option<u64>,
    burst: Option<u64>,
    once: Option<u64>,
    of: &'static str,
) -> Result<Option<Rate>, Error> {
    let Some(per_second) = per_second else {
        return match burst.or(once) {
            None => Ok(None),
            Some(_) => Err(Error::BurstWithoutRate { of }),
        };
    };
    let rate = Rate::per_second(per_second)?.once(once.unwrap_or(0));
    Ok(Some(match burst {
        Some(burst) => rate.burst(burst),
        None => rate,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<RateLimit, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_become_rates() {
        let limit = parse(r#"{"bandwidth": "10M", "burst": "1M", "once": "64M"}"#).unwrap();
        let expected = Rate::per_second(10 << 20).unwrap();
        assert_eq!(
            limit.bandwidth,
            Some(expected.burst(1 << 20).once(64 << 20))
        );
        assert_eq!(limit.operations, None);
        let limit = parse(r#"{"operations": 1000}"#).unwrap();
        assert_eq!(
            limit.operations,
            Some(Rate::per_second(1000).unwrap().burst(100))
        );
        assert_eq!(parse("{}").unwrap(), RateLimit::NONE);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for (json, expected) in [
            (r#"{"bandwidth": 0}"#, "a rate of zero"),
            (r#"{"burst": "1M"}"#, "`bandwidth`"),
            (r#"{"operations_once": 3}"#, "`operations`"),
            (r#"{"bandwith": "1M"}"#, "unknown field `bandwith`"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
