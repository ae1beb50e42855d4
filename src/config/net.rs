//! Network interfaces as a user asks for them: `--net`, `-p`, and their keys in JSON.

use super::json::nearest;
use super::rate_limit::Written;
use super::{Error, PortMapping, RateLimit};
use serde::Deserialize;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// One network interface of a guest.
///
/// As text: keys and values with commas between, `tap=tap0,queues=2`; the empty text is all defaults.
/// In JSON the limits are objects, `"rx": {"bandwidth": "10M"}`, and the text's `rx_bandwidth=10M`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Net {
    /// An existing tap to use. Without one kvmlet makes its own, with addresses and a way out.
    pub tap: Option<String>,
    /// The guest's hardware address; made up if not said.
    pub mac: Option<MacAddress>,
    /// The largest packet, in bytes. A tap that exists has one already.
    pub mtu: Option<Mtu>,
    /// Pairs of queues, for guests with several vCPUs.
    pub queues: QueuePairs,
    /// The network between host and guest, instead of one that is chosen.
    pub subnet: Option<Subnet>,
    /// Limit towards the guest.
    pub rx: RateLimit,
    /// Limit from the guest.
    pub tx: RateLimit,
    /// Ports of the host that lead to the guest.
    pub publish: Vec<PortMapping>,
}

impl Net {
    /// The keys of the text form.
    const KEYS: [&str; 17] = [
        "tap",
        "mac",
        "mtu",
        "queues",
        "subnet",
        "rx_bandwidth",
        "rx_burst",
        "rx_once",
        "rx_operations",
        "rx_operations_burst",
        "rx_operations_once",
        "tx_bandwidth",
        "tx_burst",
        "tx_once",
        "tx_operations",
        "tx_operations_burst",
        "tx_operations_once",
    ];

    /// Checks what no single key can get wrong.
    ///
    /// # Errors
    /// When the tap's name is none, or when a tap that exists, whose addresses are not kvmlet's, is to have addresses or published ports.
    pub fn check(&self) -> Result<(), Error> {
        let Some(tap) = &self.tap else {
            return Ok(());
        };
        interface_name(tap).map_err(|expected| Error::NetValue {
            key: "tap".into(),
            value: tap.clone(),
            expected,
        })?;
        let key = match () {
            () if self.subnet.is_some() => "subnet",
            () if self.mtu.is_some() => "mtu",
            () if !self.publish.is_empty() => "publish",
            () => return Ok(()),
        };
        Err(Error::NetTapOwned { key })
    }
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut net = Net::default();
        let (mut rx, mut tx) = (Written::default(), Written::default());
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let invalid = |expected: &'static str| Error::NetValue {
                key: key.into(),
                value: value.into(),
                expected,
            };
            match key {
                "tap" => {
                    let name = interface_name(value).map_err(invalid)?;
                    net.tap = Some(name.into());
                }
                "mac" => net.mac = Some(value.parse()?),
                "mtu" => net.mtu = Some(number(value).map_err(invalid)?.try_into()?),
                "queues" => net.queues = number(value).map_err(invalid)?.try_into()?,
                "subnet" => net.subnet = Some(value.parse()?),
                _ => match key.split_once('_') {
                    Some(("rx", key)) if limit(&mut rx, key, value)? => {}
                    Some(("tx", key)) if limit(&mut tx, key, value)? => {}
                    _ => {
                        let nearest = nearest(key, Self::KEYS.into_iter());
                        let key = key.into();
                        return Err(Error::NetKey { key, nearest });
                    }
                },
            }
        }
        (net.rx, net.tx) = (rx.try_into()?, tx.try_into()?);
        net.check()?;
        Ok(net)
    }
}

/// Puts one key of a rate limit in place; false if there is no such key.
fn limit(limit: &mut Written, key: &str, value: &str) -> Result<bool, Error> {
    let operations = || {
        number(value).map_err(|expected| Error::NetValue {
            key: key.into(),
            value: value.into(),
            expected,
        })
    };
    match key {
        "bandwidth" => limit.bandwidth = Some(value.parse()?),
        "burst" => limit.burst = Some(value.parse()?),
        "once" => limit.once = Some(value.parse()?),
        "operations" => limit.operations = Some(operations()?),
        "operations_burst" => limit.operations_burst = Some(operations()?),
        "operations_once" => limit.operations_once = Some(operations()?),
        _ => return Ok(false),
    }
    Ok(true)
}

fn number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "a number")
}

/// Linux's rule for names of interfaces (`dev_valid_name`).
fn interface_name(text: &str) -> Result<&str, &'static str> {
    let fine = (1..=15).contains(&text.len())
        && ![".", ".."].contains(&text)
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    match fine {
        true => Ok(text),
        false => Err("the name of an interface, of 1 to 15 bytes"),
    }
}

/// A hardware address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// A locally administered address that ends in the given bytes.
    pub fn local(end: [u8; 5]) -> Self {
        let [b, c, d, e, f] = end;
        Self([0x02, b, c, d, e, f])
    }

    /// The six bytes, first to last.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::MacAddress { text: text.into() };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let digits = parts.next().filter(|part| part.len() == 2);
            *octet = digits
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(invalid)?;
        }
        // The lowest bit of the first byte is for groups; no interface has the address of a group.
        if parts.next().is_some() || octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(invalid());
        }
        Ok(Self(octets))
    }
}

/// The largest packet of an interface: 68 (RFC 791) to 65521 bytes (what a tap takes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Mtu(u16);

impl Mtu {
    /// Ethernet's.
    pub const ETHERNET: Self = Self(1500);

    /// The size in bytes.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for Mtu {
    type Error = Error;

    fn try_from(bytes: u64) -> Result<Self, Error> {
        match u16::try_from(bytes) {
            Ok(mtu @ 68..=65521) => Ok(Self(mtu)),
            _ => Err(Error::MtuRange { bytes }),
        }
    }
}

/// How many pairs of queues an interface has: 1 to [`QueuePairs::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct QueuePairs(u8);

impl QueuePairs {
    /// Each pair has a thread of its own; more have no use for one service.
    pub const MAX: u8 = 8;

    /// The count as a number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for QueuePairs {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u64> for QueuePairs {
    type Error = Error;

    fn try_from(count: u64) -> Result<Self, Error> {
        match u8::try_from(count) {
            Ok(n @ 1..=Self::MAX) => Ok(Self(n)),
            _ => Err(Error::QueuePairs { count }),
        }
    }
}

/// An IPv4 network of at least two hosts, such as `10.1.2.0/30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The network at this address with so many bits of prefix; none unless the address is a network's, and
    /// the prefix has 8 to 30 bits.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let subnet = Self { address, prefix };
        let fine = (8..=30).contains(&prefix) && address.to_bits() & !subnet.mask() == 0;
        fine.then_some(subnet)
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The prefix as a mask.
    pub fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    /// The address of the network itself.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The host's address in it: the first.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | 1)
    }

    /// The guest's address in it: the second.
    pub fn guest(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | 2)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, prefix)| Self::new(address.parse().ok()?, prefix.parse().ok()?));
        parsed.ok_or_else(|| Error::Subnet { text: text.into() })
    }
}

macro_rules! deserialize_from_text {
    ($($type:ty),*) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(super) use deserialize_from_text;

deserialize_from_text!(MacAddress, Subnet);

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
