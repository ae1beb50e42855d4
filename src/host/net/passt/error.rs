//! What can go wrong with passt, and what a person can do about it.

use crate::config::{Advice, PortMapping, Setting, advice};
use std::io;

/// Why a guest's interface cannot be carried by passt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is not there.
    #[error("there is no program `passt`, which is to carry the guest's network interface")]
    Missing,
    /// It cannot be started, or the host gives no sockets for it.
    #[error("passt cannot be started")]
    Start {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It has ended, or does nothing.
    #[error("passt, which is to carry the guest's network interface, {how}{}", match .said.as_str() {
        "" => String::new(),
        said => format!(": {said}"),
    })]
    Unfit {
        /// How it has failed.
        how: &'static str,
        /// What it has printed.
        said: String,
    },
    /// Several pairs of queues were asked for.
    #[error("{queues} queue pairs were asked for, and passt has one")]
    Queues {
        /// How many.
        queues: u8,
    },
    /// A port is to be published at an address of IPv6.
    #[error(
        "cannot publish {mapping}: passt is asked for IPv4 only, as the guest has no address of IPv6"
    )]
    Ipv6 {
        /// What the user wrote.
        mapping: PortMapping,
    },
}

impl Error {
    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<Advice> {
        Some(match self {
            Self::Missing => super::INSTALL.into(),
            Self::Queues { .. } => advice!("leave out {}", Setting::NetQueues),
            Self::Ipv6 { .. } => {
                "publish it at an address of IPv4, or at none in particular".into()
            }
            Self::Unfit { said, .. } if said.contains("interface") => {
                "passt goes the way of this host's default route, and there must be one".into()
            }
            _ => return None,
        })
    }
}
