//! Connections that the kernel knows (linux/netfilter/nfnetlink_conntrack.h).
//!
//! It keeps for minutes, or days, where a connection was led and what belongs to it: to an address, whoever has that by
//! then.

use super::nft::{Socket, bytes, find, nested};
use std::io;
use std::net::Ipv4Addr;

/// Types of messages: the subsystem is the upper half.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const GET: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 1;
const DELETE: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 2;
const GET_STATISTICS: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 5;
/// Attributes of a connection: how its first packet went, how answers go, and a zone where there are some.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
/// In a direction.
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;

/// What names a connection.
struct Connection {
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Does the kernel tell its connections? It is asked for how many there are.
///
/// # Errors
/// What it says if not.
pub(super) fn check(socket: &mut Socket) -> io::Result<()> {
    socket.ask(GET_STATISTICS, super::nft::IPV4, &[])
}

/// Has the kernel forget all connections from and to some addresses.
///
/// # Errors
/// When it does not tell its connections (CONFIG_NF_CT_NETLINK), or without CAP_NET_ADMIN.
pub(super) fn forget(socket: &mut Socket, addresses: &[Ipv4Addr]) -> io::Result<()> {
    let mut found = Vec::new();
    socket.list_of(GET, super::nft::IPV4, |attributes| {
        let tuples = [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].map(|tuple| find(attributes, tuple));
        let concerned = tuples
            .into_iter()
            .flatten()
            .any(|tuple| names_one_of(tuple, addresses));
        if let ([Some(original), _], true) = (tuples, concerned) {
            found.push(Connection {
                original: original.to_vec(),
                zone: find(attributes, CTA_ZONE).map(<[u8]>::to_vec),
            });
        }
    })?;
    for Connection { original, zone } in found {
        let mut attributes = vec![nested(CTA_TUPLE_ORIG, original)];
        attributes.extend(zone.map(|zone| bytes(CTA_ZONE, zone)));
        match socket.ask(DELETE, super::nft::IPV4, &attributes) {
            Ok(()) => {}
            // Its time has come meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Is one of the addresses at one of the ends?
fn names_one_of(tuple: &[u8], addresses: &[Ipv4Addr]) -> bool {
    let ends = find(tuple, CTA_TUPLE_IP).unwrap_or_default();
    let is_at = |end, address: &Ipv4Addr| find(ends, end) == Some(&address.octets());
    addresses
        .iter()
        .any(|address| is_at(CTA_IP_V4_SRC, address) || is_at(CTA_IP_V4_DST, address))
}
