//! When a service that has ended is started again.

use super::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// When a service that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its exit code is not zero.
    OnFailure {
        /// How often in a row, if there is a limit.
        at_most: Option<NonZeroU32>,
    },
    /// Always; after a reboot of the host, too. Who stops it has it stopped until then.
    Always,
    /// Always, unless somebody has stopped it: then it stays so after a reboot, too.
    UnlessStopped,
}

impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, attempts) = match text.split_once(':') {
            Some((name, attempts)) => (name, Some(attempts)),
            None => (text, None),
        };
        let policy = match name {
            "no" => Self::No,
            "on-failure" => Self::OnFailure { at_most: None },
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            _ => return Err(Error::Policy { text: text.into() }),
        };
        match (policy, attempts) {
            (Self::OnFailure { .. }, Some(attempts)) => {
                let count = attempts.parse().ok().filter(|_| !attempts.starts_with('+'));
                let count: u32 = count.ok_or_else(|| Error::AttemptCount {
                    text: attempts.into(),
                })?;
                let at_most = NonZeroU32::new(count);
                Ok(Self::OnFailure { at_most })
            }
            (_, Some(_)) => Err(Error::Attempts {
                policy: name.into(),
            }),
            (policy, None) => Ok(policy),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::OnFailure { at_most: None } => "on-failure",
            Self::OnFailure {
                at_most: Some(count),
            } => return write!(f, "on-failure:{count}"),
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        })
    }
}

impl Serialize for RestartPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RestartPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_dockers() {
        for text in [
            "no",
            "on-failure",
            "on-failure:5",
            "always",
            "unless-stopped",
        ] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        let unlimited: RestartPolicy = "on-failure:0".parse().unwrap();
        assert_eq!(unlimited, RestartPolicy::OnFailure { at_most: None });
        for (text, expected) in [
            ("", "is not a restart policy (no, on-failure"),
            ("Always", "`Always` is not a restart policy"),
            (
                "always:3",
                "only `on-failure` has a number of attempts, not `always`",
            ),
            ("no:0", "only `on-failure`"),
            ("on-failure:", "`` is not a number of attempts"),
            ("on-failure:-1", "`-1` is not"),
            ("on-failure:+1", "`+1` is not"),
            ("on-failure:4294967296", "is not a number of attempts"),
        ] {
            let error = text.parse::<RestartPolicy>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
