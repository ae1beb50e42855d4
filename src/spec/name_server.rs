//! The address of a name server, as people write it.

use super::Error;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::str::FromStr;

/// An IP address, of either version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct NameServer(pub IpAddr);

impl FromStr for NameServer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let address = text.parse();
        address
            .map(Self)
            .map_err(|_| Error::IpAddress { text: text.into() })
    }
}

impl TryFrom<String> for NameServer {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}
