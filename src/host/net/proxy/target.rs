//! Where what comes in is passed on to.

use std::net::{Ipv4Addr, SocketAddr};

/// Where a listener's connections lead.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Guest(SocketAddr),
    /// To the host's name servers, for one guest only.
    NameServers {
        of: Ipv4Addr,
    },
}
