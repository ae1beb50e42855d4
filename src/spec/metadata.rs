//! Who answers a guest instead of its network.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A service that has an address on an interface and no part in its network: a guest's questions for the address (ARP)
/// and what it sends there by TCP over IPv4 go to a socket instead, and frames from there to the guest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Metadata {
    /// Of the service.
    pub address: Ipv4Addr,
    /// A socket that keeps frames apart (`SOCK_SEQPACKET`) and does not block, whose other end the service has. Each frame
    /// has a `virtio_net_hdr_v1` in front (virtio 1.2 §5.1.6); checksums and segmentation may be left to the service.
    pub socket: Arc<OwnedFd>,
}

impl Metadata {
    /// At this address, by this socket.
    pub fn new(address: Ipv4Addr, socket: OwnedFd) -> Self {
        let socket = Arc::new(socket);
        Self { address, socket }
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && Arc::ptr_eq(&self.socket, &other.socket)
    }
}

impl Eq for Metadata {}
