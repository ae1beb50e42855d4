//! What the kernel knows of routes and interfaces, asked for one by one (rtnetlink(7)): that takes as long however many there
//! are.

use crate::config::Subnet;
use rustix::buffer::spare_capacity;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

/// linux/rtnetlink.h, linux/netlink.h, linux/fib_rules.h, linux/netconf.h
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const RTM_NEWNETCONF: u16 = 80;
const RTM_GETNETCONF: u16 = 82;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
/// The answer is the route that matches, and not what becomes of it for this address.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;

const HEADER_BYTES: usize = 16;
/// `struct rtmsg`, and `struct fib_rule_hdr`.
const ROUTE_BYTES: usize = 12;
/// `struct netconfmsg`, filled up.
const SETTING_BYTES: usize = 4;
/// More than the kernel puts into one datagram.
const DATAGRAM_BYTES: usize = 32 << 10;

/// A socket for such questions.
pub(super) struct Lookup {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Lookup {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is the protocol of number 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let buffer = Vec::with_capacity(DATAGRAM_BYTES);
        Ok(Self { socket, buffer })
    }

    /// Does the main table decide about all that is not this host's own, as on a host where nobody has added rules?
    pub fn main_table_decides(&mut self) -> io::Result<bool> {
        let mut usual = true;
        let question = message(
            RTM_GETRULE,
            NLM_F_DUMP,
            &[AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        self.ask(&question, |kind, rule| {
            usual &= kind == RTM_NEWRULE && is_usual(rule).unwrap_or(false);
        })?;
        Ok(usual)
    }

    /// Is a network one that no route leads to but a default one? Where that is not certain, it is not.
    pub fn is_free(&mut self, subnet: Subnet) -> io::Result<bool> {
        let first = subnet.address().to_bits();
        for address in first..=first | !subnet.mask() {
            if !self.is_without_route(Ipv4Addr::from_bits(address))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_without_route(&mut self, address: Ipv4Addr) -> io::Result<bool> {
        let mut body = [0; ROUTE_BYTES + 8];
        body[..2].copy_from_slice(&[AF_INET, 32]);
        body[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
        body[ROUTE_BYTES..].copy_from_slice(&attribute(RTA_DST, address.octets()));
        let mut prefix = None;
        let asked = self.ask(&message(RTM_GETROUTE, 0, &body), |kind, route| {
            prefix = (kind == RTM_NEWROUTE)
                .then(|| route.get(1).copied())
                .flatten();
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(true),
            Err(error) => Err(error),
            Ok(()) => Ok(prefix == Some(0)),
        }
    }

    /// Does the interface of this number forward? None where there is no such interface.
    pub fn forwards(&mut self, index: u32) -> io::Result<Option<bool>> {
        let mut body = [0; SETTING_BYTES + 8];
        body[0] = AF_INET;
        body[SETTING_BYTES..].copy_from_slice(&attribute(NETCONFA_IFINDEX, index.to_ne_bytes()));
        let mut found = None;
        let asked = self.ask(&message(RTM_GETNETCONF, 0, &body), |kind, setting| {
            if kind == RTM_NEWNETCONF {
                found = forwarding(setting);
            }
        });
        let absent = [libc::EINVAL, libc::ENODEV];
        match asked {
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|code| absent.contains(&code)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// What comes in answer: types and what is behind the headers.
    fn ask(&mut self, question: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let Self { socket, buffer } = self;
        send(&*socket, question, SendFlags::empty())?;
        let is_list = question[6..8] != NLM_F_REQUEST.to_ne_bytes();
        loop {
            buffer.clear();
            recv(&*socket, spare_capacity(buffer), RecvFlags::empty())?;
            let mut rest = &buffer[..];
            while let Some((kind, payload, next)) = first(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = payload.get(..4).map_or(0, |code| number(code) as i32);
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => each(kind, payload),
                }
                rest = next;
            }
            if !is_list {
                return Ok(());
            }
        }
    }
}

/// The type and payload of the first message, and what is behind it.
fn first(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = number(bytes.get(..4)?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER_BYTES..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, payload, next))
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(kind: u16, value: [u8; 4]) -> [u8; 8] {
    let ([a, b], [c, d]) = (8_u16.to_ne_bytes(), kind.to_ne_bytes());
    let [e, f, g, h] = value;
    [a, b, c, d, e, f, g, h]
}

/// Types and values of attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?).into();
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

/// Is it one of the three rules that all hosts have, or one like them? They look at nothing, and lead to the tables `local`,
/// `main` and `default`.
fn is_usual(rule: &[u8]) -> Option<bool> {
    const FR_ACT_TO_TBL: u8 = 1;
    const TABLES: [u8; 3] = [253, 254, 255];
    let [_, to, from, tos, table, _, _, action] = *rule.first_chunk()?;
    let flags = number(rule.get(8..ROUTE_BYTES)?);
    let looks = [to, from, tos] != [0; 3] || flags != 0;
    let known = |(kind, value): (u16, &[u8])| match kind {
        FRA_PRIORITY | FRA_TABLE | FRA_PROTOCOL => true,
        FRA_SUPPRESS_PREFIXLEN => number(value) == u32::MAX,
        _ => false,
    };
    let all_known = attributes(rule.get(ROUTE_BYTES..)?).all(known);
    Some(!looks && action == FR_ACT_TO_TBL && TABLES.contains(&table) && all_known)
}

/// Whether an interface forwards.
fn forwarding(setting: &[u8]) -> Option<bool> {
    let mut all = attributes(setting.get(SETTING_BYTES..)?);
    let found = all.find(|(kind, _)| *kind == NETCONFA_FORWARDING)?;
    Some(number(found.1) != 0)
}
