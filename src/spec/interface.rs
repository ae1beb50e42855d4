//! What a network interface of a guest has turned out to be, once the host's side of it is there.

use super::MacAddress;
use std::net::Ipv4Addr;

/// What a guest's interface is told, and its device tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The guest's hardware address.
    pub mac: MacAddress,
    /// The largest packet in bytes, for the device to tell.
    pub mtu: Option<u16>,
    /// The guest's address, if kvmlet has chosen it.
    pub guest: Option<GuestAddress>,
}

/// What a guest is to be told about its place in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestAddress {
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// The host's address, where the default route leads.
    pub gateway: Ipv4Addr,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}
