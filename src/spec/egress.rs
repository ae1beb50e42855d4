//! What a guest reaches by itself.

use super::Error;
use super::flag::NET;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What a guest may reach by itself. It always answers those who reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Nothing, and no names are looked up for it.
    None,
    /// The Internet, and published ports: no private network (RFC 6890), so neither those that the host is in, nor
    /// metadata services.
    #[default]
    Internet,
    /// Whatever the host's routes lead to.
    All,
}

impl Egress {
    pub(super) const EXPECTED: &str = "`none`, `internet` or `all`";
}

impl FromStr for Egress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Self::None),
            "internet" => Ok(Self::Internet),
            "all" => Ok(Self::All),
            _ => Err(Error::FlagValue {
                of: NET,
                key: "egress",
                value: text.into(),
                expected: Self::EXPECTED,
            }),
        }
    }
}
