//! What carries the frames of an interface that kvmlet makes.

use super::Error;
use super::flag::NET;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What is between an interface of kvmlet's own and the host's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NetBackend {
    /// A tap, which takes the right to make one.
    Tap,
    /// The program passt(1), whose sockets are any user's.
    Passt,
}

impl NetBackend {
    pub(super) const EXPECTED: &str = "`tap` or `passt`";

    /// Can the host's kernel serve what was chosen, as it is asked to?
    pub(super) fn check_vhost(
        chosen: Option<Self>,
        is_limited: bool,
        has_metadata: bool,
    ) -> Result<(), Error> {
        let expected = match () {
            () if chosen == Some(Self::Passt) => {
                "off, as with passt: the host's kernel serves a tap"
            }
            () if is_limited => "off, as with limits: the host's kernel keeps to none",
            () if has_metadata => "off, as with metadata, which the VM's process hands on",
            () => return Ok(()),
        };
        Err(Error::FlagValue {
            of: NET,
            key: "vhost",
            value: "on".into(),
            expected,
        })
    }

    /// Can what was chosen have as many pairs of queues?
    pub(super) fn check_queues(chosen: Option<Self>, pairs: u8) -> Result<(), Error> {
        match (chosen, pairs) {
            (Some(Self::Passt), 2..) => Err(Error::FlagValue {
                of: NET,
                key: "queues",
                value: pairs.to_string(),
                expected: "1, which is all that passt has",
            }),
            _ => Ok(()),
        }
    }
}

impl FromStr for NetBackend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "tap" => Ok(Self::Tap),
            "passt" => Ok(Self::Passt),
            _ => Err(Error::FlagValue {
                of: NET,
                key: "backend",
                value: text.into(),
                expected: Self::EXPECTED,
            }),
        }
    }
}
