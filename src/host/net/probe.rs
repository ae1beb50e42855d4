//! Whether the guest's questions about names arrive, whatever firewalls this host has: one is sent as the guest would.
//!
//! A frame that is written to a tap comes in from it, through all rules of all tables, before the call returns. This
//! says more than rules could be made to say by reading them: nftables, iptables of both kinds, policies and last rules.

use super::link;
use super::tap::Tap;
use crate::config::{MacAddress, Subnet};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

/// What is sent. It is too short for a question, should anybody but this module receive it.
const PAYLOAD: &[u8; 8] = b"kvmlet ?";
const DNS: u16 = 53;
/// How long another CPU may take to pass it on.
const PATIENCE: Duration = Duration::from_millis(20);

/// `virtio_net_hdr_v1`, Ethernet, IPv4 and UDP.
const VIRTIO: usize = 12;
const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
const FRAME: usize = VIRTIO + ETHERNET + IP + UDP + PAYLOAD.len();

/// Sends a datagram from a guest to port 53 of the host, and tells whether the socket that stands for that port has
/// received it. The tap is up, nobody else has its queues yet, and nobody else reads the socket.
pub(super) fn arrives(
    tap: &Tap,
    guest: MacAddress,
    subnet: Subnet,
    socket: &UdpSocket,
) -> io::Result<bool> {
    let host = link::Socket::open()?.hardware_address(tap.name())?;
    // What was sent from a port goes where it went before, for half a minute: to a VM that is gone, maybe.
    let mut from = [0; 2];
    getrandom(&mut from, GetRandomFlags::empty())?;
    let frame = frame(host, guest, subnet, u16::from_ne_bytes(from) | 1 << 15);
    let Some(queue) = tap.queues().first() else {
        return Ok(false);
    };
    rustix::io::write(queue.as_fd(), &frame)?;
    wait::one(Slot::readable(socket.as_fd()), Until::after(PATIENCE))?;
    let mut received = [0; 2 * PAYLOAD.len()];
    match socket.recv_from(&mut received) {
        Ok((bytes, from)) => {
            let as_sent = received[..bytes] == PAYLOAD[..];
            Ok(as_sent && from.ip() == IpAddr::from(subnet.guest()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn frame(host: MacAddress, guest: MacAddress, subnet: Subnet, from: u16) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let mut at = VIRTIO;
    let mut put = |bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&host.octets());
    put(&guest.octets());
    put(&[0x08, 0x00]);
    // RFC 791, 3.1: version 4, five words; a time to live of 64; UDP.
    let length = (IP + UDP + PAYLOAD.len()) as u16;
    let mut header = [0; IP];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[8..10].copy_from_slice(&[64, 17]);
    header[12..16].copy_from_slice(&subnet.guest().octets());
    header[16..20].copy_from_slice(&subnet.host().octets());
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    put(&header);
    // RFC 768: a checksum of zero is none.
    put(&from.to_be_bytes());
    put(&DNS.to_be_bytes());
    put(&((UDP + PAYLOAD.len()) as u16).to_be_bytes());
    put(&[0, 0]);
    put(PAYLOAD);
    frame
}

/// RFC 1071: the complement of the sum in one's complement, of an even number of bytes.
pub(super) fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_1071() {
        // A header whose checksum was in it sums up to nothing.
        let subnet: Subnet = "10.107.0.0/30".parse().unwrap();
        let mac = MacAddress::local([1, 2, 3, 4, 5]);
        let frame = frame(mac, mac, subnet, 1);
        assert_eq!(checksum(&frame[VIRTIO + ETHERNET..][..IP]), 0);
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0x220d
        );
    }
}
