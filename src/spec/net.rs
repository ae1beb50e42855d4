//! Network interfaces as a user asks for them.

use super::flag::{Flag, NET};
use super::json_text::text_in_json;
use super::rate_limit::Written;
use super::{
    Egress, Error, Given, Metadata, NetBackend, PortMapping, PortMappings, QueuePairs, RateLimit,
    Setting,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::str::FromStr;

/// One network interface of a guest.
///
/// As text: keys and values with commas between, `tap=tap0,queues=2`; the empty text is all defaults, and a backend may
/// come first without its key, `passt,egress=all`. In JSON
/// the limits are objects: what is `rx-bandwidth=10M,rx-packets=1000` as text is
/// `"rx": {"bandwidth": "10M", "operations": 1000}` there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Net {
    /// An existing tap to use. Without one kvmlet makes its own, with addresses and a way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// What carries the frames of an interface that kvmlet makes; chosen by what this user may do if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<NetBackend>,
    /// The guest's hardware address; made up if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The largest packet, in bytes. A tap that exists has one already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Pairs of queues, for guests with several vCPUs.
    pub queues: QueuePairs,
    /// The host's kernel serves its queues (vhost-net), instead of a thread of the VM's: it takes a tap.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub vhost: bool,
    /// The network between host and guest, instead of one that is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
    /// What the guest may reach. A tap that exists has its own rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Limit towards the guest.
    #[serde(skip_serializing_if = "RateLimit::is_none")]
    pub rx: RateLimit,
    /// Limit from the guest.
    #[serde(skip_serializing_if = "RateLimit::is_none")]
    pub tx: RateLimit,
    /// Ports of the host that lead to the guest. In JSON each text may be a range, as in `-p`.
    #[serde(
        deserialize_with = "super::port_mapping::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub publish: Vec<PortMapping>,
    /// Whom the host asks for the guest's names, instead of its own name servers. It is a setting of the
    /// [whole VM](super::VmConfigBuilder::dns).
    #[serde(skip)]
    pub dns: Vec<IpAddr>,
    /// Who answers the guest at one address, instead of the network: for programs that start a VM and are that themselves.
    #[serde(skip)]
    pub metadata: Option<Metadata>,
    /// The queues of a tap, where whoever starts the VM has them [open](Self::open).
    #[serde(skip)]
    pub given: Vec<Given>,
}

impl Net {
    /// Of a tap whose queues are open already, one for each pair that the guest has, for programs that start a VM. The tap
    /// may be in another network namespace. Its frames begin with a header (`IFF_VNET_HDR`) and with nothing else
    /// (`IFF_NO_PI`).
    ///
    /// # Errors
    /// [`Error::QueuePairs`] when they are none, or too many.
    pub fn open(queues: impl IntoIterator<Item = OwnedFd>) -> Result<Self, Error> {
        let given: Vec<Given> = queues.into_iter().map(Given::from).collect();
        Ok(Self {
            queues: (given.len() as u64).try_into()?,
            given,
            ..Self::default()
        })
    }

    /// Is it kvmlet that makes what carries its frames?
    pub fn is_made(&self) -> bool {
        self.tap.is_none() && self.given.is_empty()
    }

    /// Checks what no single key can get wrong, and the tap's name.
    ///
    /// # Errors
    /// When the name is none; when a tap that exists, or is open, whose addresses are not kvmlet's, is to have addresses or
    /// published ports; with several queues of passt; or if the host's kernel is to serve what it cannot.
    pub fn check(&self) -> Result<(), Error> {
        if self.vhost {
            let is_limited = !(self.rx.is_none() && self.tx.is_none());
            NetBackend::check_vhost(self.backend, is_limited, self.metadata.is_some())?;
        }
        if self.is_made() {
            return NetBackend::check_queues(self.backend, self.queues.get());
        }
        if let Some(tap) = self.tap.as_ref().filter(|tap| !is_interface_name(tap)) {
            return Err(Error::FlagValue {
                of: NET,
                key: "tap",
                value: tap.clone(),
                expected: INTERFACE_NAME,
            });
        }
        let key = match () {
            () if self.subnet.is_some() => "subnet",
            () if self.mtu.is_some() && self.given.is_empty() => "mtu",
            () if !self.publish.is_empty() => "publish",
            () if self.egress.is_some() => "egress",
            () if self.backend.is_some() => "backend",
            () => return Ok(()),
        };
        Err(Error::NetTapOwned { key })
    }
}

/// Checks that no port of the host is published twice, and that they are not too many.
pub(super) fn check_ports(nets: &[Net]) -> Result<(), Error> {
    let count = nets.iter().map(|net| net.publish.len()).sum();
    if count > PortMappings::MAX {
        return Err(Error::PortCount { count });
    }
    let mut seen: Vec<&PortMapping> = Vec::new();
    for mapping in nets.iter().flat_map(|net| &net.publish) {
        if seen.iter().any(|other| other.collides_with(mapping)) {
            return Err(Error::PublishedTwice { mapping: *mapping });
        }
        seen.push(mapping);
    }
    Ok(())
}

/// Gives the name servers of a VM to all interfaces that can make use of them.
pub(super) fn set_name_servers(nets: &mut [Net], servers: &[IpAddr]) -> Result<(), Error> {
    let is_no_host = |address: &&IpAddr| {
        address.is_unspecified() || address.is_multicast() || **address == Ipv4Addr::BROADCAST
    };
    if let Some(address) = servers.iter().find(is_no_host) {
        return Err(Error::NameServer { address: *address });
    }
    let mut alone = !servers.is_empty();
    for net in nets.iter_mut().filter(|net| net.is_made()) {
        alone = false;
        net.dns = servers.to_vec();
    }
    match alone {
        true => Err(Error::NameServersAlone),
        false => Ok(()),
    }
}

const INTERFACE_NAME: &str = "the name of an interface, of 1 to 15 bytes";

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        // A value that comes first alone is a backend, or the name of a tap.
        let main = match text.split(',').next() {
            Some("tap" | "passt") => Cow::Owned(format!("backend={text}")),
            _ => Cow::Borrowed(text),
        };
        let flag = Flag::parse(Setting::Nets, NET, "tap", &main)?;
        let queues = flag.number("queues")?.map(QueuePairs::try_from);
        let rx = Written {
            bandwidth: flag.bytes("rx-bandwidth")?,
            burst: flag.bytes("rx-burst")?,
            once: flag.bytes("rx-once")?,
            operations: flag.number("rx-packets")?,
            operations_burst: flag.number("rx-packets-burst")?,
            operations_once: flag.number("rx-packets-once")?,
        };
        let tx = Written {
            bandwidth: flag.bytes("tx-bandwidth")?,
            burst: flag.bytes("tx-burst")?,
            once: flag.bytes("tx-once")?,
            operations: flag.number("tx-packets")?,
            operations_burst: flag.number("tx-packets-burst")?,
            operations_once: flag.number("tx-packets-once")?,
        };
        let net = Self {
            tap: flag.text("tap", INTERFACE_NAME)?.map(String::from),
            backend: flag.parsed("backend", NetBackend::EXPECTED, parse)?,
            mac: flag.parsed("mac", "an address such as 02:00:00:12:34:56", parse)?,
            mtu: flag.number("mtu")?.map(Mtu::try_from).transpose()?,
            queues: queues.transpose()?.unwrap_or_default(),
            vhost: flag.switch("vhost")?,
            subnet: flag.parsed("subnet", "a network for hosts such as 10.1.2.0/30", parse)?,
            egress: flag.parsed("egress", Egress::EXPECTED, parse)?,
            rx: rx.limit("rx-bandwidth", "rx-packets")?,
            tx: tx.limit("tx-bandwidth", "tx-packets")?,
            publish: Vec::new(),
            dns: Vec::new(),
            metadata: None,
            given: Vec::new(),
        };
        net.check()?;
        Ok(net)
    }
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Linux's rule for names of interfaces (`dev_valid_name`).
pub fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && ![".", ".."].contains(&text)
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
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

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// An IPv4 network of at least two hosts, such as `10.1.2.0/30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// Addresses that no interface of a host or guest can have, with their prefixes (RFC 6890, RFC 5771): this
    /// network's, loopback's, those of links and of clouds' metadata, multicast's and reserved ones.
    const UNUSABLE: [(Ipv4Addr, u8); 4] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];

    /// The network at this address with this many bits of prefix; none unless the address is a network's, the
    /// prefix has 8 to 30 bits, and hosts can have its addresses.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let subnet = Self { address, prefix };
        if !(8..=30).contains(&prefix) || address.to_bits() & !subnet.mask() != 0 {
            return None;
        }
        let mut unusable = Self::UNUSABLE.into_iter();
        let overlaps = unusable.any(|(other, prefix)| {
            let both = subnet.mask() & (u32::MAX << (32 - prefix));
            (address.to_bits() ^ other.to_bits()) & both == 0
        });
        (!overlaps).then_some(subnet)
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

text_in_json!(MacAddress, Subnet);

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
