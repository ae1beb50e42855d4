//! What a frame is about, as far as it decides whether the frame may pass.

use std::net::Ipv4Addr;

/// Sizes of headers, in bytes (IEEE 802.3; RFC 791 without options).
pub(super) const ETHERNET: usize = 14;
pub(super) const IP: usize = 20;
const ARP: usize = 28;

const ETHERTYPE_IP: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Where a TCP header has its flags, and two of them.
const TCP_FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Types of ICMP messages (RFC 792).
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Destination unreachable and time exceeded, which are about another packet.
const REPORTS: [u8; 2] = [3, 11];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// A question about an address, or an answer, with the sender's own (RFC 826).
    Arp { sender: Ipv4Addr },
    /// A packet of IPv4.
    Ip {
        source: Ipv4Addr,
        destination: Ipv4Addr,
        content: Content,
    },
}

/// What a packet of IPv4 carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// TCP or UDP, with the ports of source and destination, and whether it begins a connection (RFC 9293, 3.5).
    Ports {
        protocol: u8,
        from: u16,
        to: u16,
        opens: bool,
    },
    /// A ping or its answer, with its identifier.
    Echo(u16),
    /// What has become of another packet.
    Report,
}

impl Packet {
    /// Nothing if the frame is anything else than that, is cut short, or is part of a packet only: passt takes no
    /// fragments.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let payload = frame.get(ETHERNET..)?;
        match frame.get(12..14)?.try_into() {
            Ok(ETHERTYPE_IP) => Self::ip(payload),
            Ok(ETHERTYPE_ARP) => Self::arp(payload),
            _ => None,
        }
    }

    fn arp(packet: &[u8]) -> Option<Self> {
        // Ethernet and IPv4, a request or a reply.
        let known = packet.get(..7)? == [0, 1, 8, 0, 6, 4, 0] && [1, 2].contains(packet.get(7)?);
        (known && packet.len() >= ARP).then_some(())?;
        let sender = address(packet, 14)?;
        Some(Self::Arp { sender })
    }

    fn ip(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let header = usize::from(first & 0xf) * 4;
        let total = usize::from(number(packet, 2)?);
        // All but "don't fragment" says that it is a part.
        let whole = number(packet, 6)? & !0x4000 == 0;
        if first >> 4 != 4 || header < IP || total < header || total > packet.len() || !whole {
            return None;
        }
        let content = packet.get(header..total)?;
        let protocol = *packet.get(9)?;
        let content = match protocol {
            TCP | UDP => Content::Ports {
                protocol,
                from: number(content, 0)?,
                to: number(content, 2)?,
                opens: protocol == TCP && content.get(TCP_FLAGS)? & (SYN | ACK) == SYN,
            },
            ICMP => match *content.first()? {
                ECHO_REQUEST | ECHO_REPLY => Content::Echo(number(content, 4)?),
                other if REPORTS.contains(&other) => Content::Report,
                _ => return None,
            },
            _ => return None,
        };
        Some(Self::Ip {
            source: address(packet, 12)?,
            destination: address(packet, 16)?,
            content,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}
