//! Published ports: `-p 8080:80`.

use super::Error;
use super::json_text::text_in_json;
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where on the host a port is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostAddress {
    /// At all addresses of the host, IPv4 and IPv6.
    #[default]
    All,
    /// For clients on the host only: at 127.0.0.1 and ::1.
    Localhost,
    /// At one address. An unspecified one stands for all of its family.
    Ip(IpAddr),
}

impl HostAddress {
    /// The addresses to listen at, one of each family at most. Where there are two, a host without IPv6 serves the
    /// first alone.
    pub fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::All => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Self::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Self::Ip(address) => vec![address],
        }
    }

    fn overlaps(self, other: Self) -> bool {
        let overlap = |a: &IpAddr, b: &IpAddr| {
            a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
        };
        let others = other.addresses();
        let mut mine = self.addresses().into_iter();
        mine.any(|a| others.iter().any(|b| overlap(&a, b)))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "localhost" {
            return Ok(Self::Localhost);
        }
        let address: IpAddr = text.parse().map_err(
            |_| "the host's address is an IP address or `localhost`; other names are not looked up",
        )?;
        let address = address.to_canonical();
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        if address.is_multicast() || link_local || address == Ipv4Addr::BROADCAST {
            return Err("nobody can listen at a multicast, broadcast or link-local address");
        }
        Ok(Self::Ip(address))
    }
}

/// Which port of the host leads to the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// This one.
    Fixed(NonZeroU16),
    /// The first one of a range that is free: first and last.
    FirstFree(NonZeroU16, NonZeroU16),
    /// One that the host chooses.
    Any,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(port) => write!(f, "{port}"),
            Self::FirstFree(first, last) => write!(f, "{first}-{last}"),
            Self::Any => Ok(()),
        }
    }
}

/// A port of the host that leads to one of the guest: `[ADDRESS:][HOST:]GUEST[/tcp|udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// Where on the host it is reachable.
    pub address: HostAddress,
    /// Port on the host.
    pub host: HostPort,
    /// Port in the guest.
    pub guest: NonZeroU16,
    /// TCP if not said.
    pub protocol: Protocol,
}

impl PortMapping {
    /// Whether both want the same port of the host for sure.
    pub fn collides_with(&self, other: &Self) -> bool {
        matches!(self.host, HostPort::Fixed(_))
            && (self.host, self.protocol) == (other.host, other.protocol)
            && self.address.overlaps(other.address)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            HostAddress::All => {}
            HostAddress::Localhost => write!(f, "localhost:")?,
            HostAddress::Ip(IpAddr::V4(address)) => write!(f, "{address}:")?,
            HostAddress::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        if (self.address, self.host) != (HostAddress::All, HostPort::Any) {
            write!(f, "{}:", self.host)?;
        }
        write!(f, "{}/{}", self.guest, self.protocol.name())
    }
}

impl FromStr for PortMapping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match PortMappings::from_str(text)?.0[..] {
            [mapping] => Ok(mapping),
            _ => Err(invalid(text, "one port is expected here, not a range")),
        }
    }
}

text_in_json!(PortMapping);

/// What one `-p` publishes: a port, or with ranges several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMappings(Vec<PortMapping>);

impl PortMappings {
    /// The most ports of one VM. Each has up to two sockets, and with the connections that are proxied they fit
    /// into the usual limit of 1024 descriptors.
    pub const MAX: usize = 128;
}

impl IntoIterator for PortMappings {
    type Item = PortMapping;
    type IntoIter = std::vec::IntoIter<PortMapping>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromStr for PortMappings {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map(Self).map_err(|why| invalid(text, why))
    }
}

impl<'de> Deserialize<'de> for PortMappings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A list of texts, each of which may be a range.
pub(super) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PortMapping>, D::Error> {
    let lists = Vec::<PortMappings>::deserialize(from)?;
    Ok(lists.into_iter().flatten().collect())
}

fn invalid(text: &str, why: &'static str) -> Error {
    Error::PortMapping {
        text: text.into(),
        why,
    }
}

fn parse(text: &str) -> Result<Vec<PortMapping>, &'static str> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err("the protocol is tcp or udp"),
    };
    let (address, host, guest) = split(text)?;
    let address = address.map_or(Ok(HostAddress::All), HostAddress::parse)?;
    let (first, last) = range(guest)?;
    let guests: Vec<NonZeroU16> = ports(first, last).collect();
    let hosts: Vec<HostPort> = match host {
        None => vec![HostPort::Any; guests.len()],
        Some(host) => {
            let (first, last) = range(host)?;
            let ports = ports(first, last).map(HostPort::Fixed);
            match guests.len() {
                1 if first != last => vec![HostPort::FirstFree(first, last)],
                _ => ports.collect(),
            }
        }
    };
    if hosts.len() != guests.len() {
        return Err("the ranges of host and guest are not equally long");
    }
    if guests.len() > PortMappings::MAX {
        return Err("a VM can publish at most 128 ports");
    }
    let pairs = hosts.into_iter().zip(guests);
    let mapping = |(host, guest)| PortMapping {
        address,
        host,
        guest,
        protocol,
    };
    Ok(pairs.map(mapping).collect())
}

/// Address and port of the host, as far as they are there, and the guest's port.
fn split(text: &str) -> Result<(Option<&str>, Option<&str>, &str), &'static str> {
    let given = |text: &'_ str| !text.is_empty();
    if let Some(rest) = text.strip_prefix('[') {
        let parts = rest.split_once("]:");
        let (address, ports) = parts.ok_or("the host's address is not followed by `]:`")?;
        if address.parse::<Ipv6Addr>().is_err() {
            return Err("what stands in brackets is not an IPv6 address");
        }
        let ports = ports.split_once(':');
        let (host, guest) = ports.ok_or("the guest's port is missing behind the address")?;
        return Ok((Some(address), Some(host).filter(|host| given(host)), guest));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [guest] => Ok((None, None, guest)),
        [address, _] if address == "localhost" || address.parse::<Ipv4Addr>().is_ok() => {
            Err("the guest's port is missing behind the address")
        }
        [host, guest] => Ok((None, Some(host).filter(|host| given(host)), guest)),
        ["", ..] => Err("the host's address is missing; an IPv6 address stands in brackets"),
        [address, host, guest] => Ok((Some(address), Some(host).filter(|host| given(host)), guest)),
        _ => Err("an IPv6 address stands in brackets: [::1]:8080:80"),
    }
}

fn range(text: &str) -> Result<(NonZeroU16, NonZeroU16), &'static str> {
    let port = |text: &str| {
        // No sign, which a number could have for Rust.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.then(|| text.parse().ok()).flatten();
        port.ok_or("a port is a number from 1 to 65535")
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    match first <= last {
        true => Ok((first, last)),
        false => Err("a range of ports goes from the lower to the higher one"),
    }
}

fn ports(first: NonZeroU16, last: NonZeroU16) -> impl Iterator<Item = NonZeroU16> {
    (first.get()..=last.get()).filter_map(NonZeroU16::new)
}

#[cfg(test)]
#[path = "port_mapping_tests.rs"]
mod tests;
