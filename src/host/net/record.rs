//! What is written in a lease.

use super::namespace::Namespace;
use crate::config::{Egress, HostAddress, HostPort, PortMapping, Protocol, Subnet};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

/// What the names of kvmlet's interfaces begin with.
pub(super) const TAP_PREFIX: &str = "kvmlet";

/// What is written in a lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub pid: u32,
    /// The network namespace, by its inode number.
    pub namespace: u64,
    /// Its cookie.
    #[serde(default)]
    pub cookie: u64,
    pub tap: String,
    /// The tap's number.
    #[serde(default)]
    pub index: u32,
    pub subnet: String,
    pub guest: Ipv4Addr,
    /// In the form of `-p`.
    pub published: Vec<String>,
    /// Where the host answers the guest's questions about names: ports at its address in the network.
    pub dns: Option<DnsPorts>,
    #[serde(default)]
    pub egress: Egress,
    /// Where the roll tells of its owner's end.
    #[serde(default)]
    pub cell: Option<u32>,
}

/// Ports of the host that stand for port 53, which this host may have other uses for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct DnsPorts {
    pub udp: u16,
    pub tcp: u16,
}

/// A published port whose clients elsewhere come by DNAT: all but those of IPv6 and of loopback, whom the proxy
/// serves alone.
pub(super) struct Forwarded {
    /// The host's address, if not all.
    pub at: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub host: NonZeroU16,
    pub guest: NonZeroU16,
}

impl Record {
    /// Is it about a network in that namespace?
    pub fn is_of(&self, namespace: Namespace) -> bool {
        namespace.is(self.namespace, self.cookie)
    }

    /// Can kvmlet have written this, in the note of this name? What is cleared by a note is no more than that.
    pub fn is_credible(&self, name: &str) -> bool {
        let number = self.tap.strip_prefix(TAP_PREFIX).unwrap_or_default();
        let is_tap = !number.is_empty()
            && self.tap.len() < libc::IFNAMSIZ
            && number.bytes().all(|byte| byte.is_ascii_digit());
        let subnet: Option<Subnet> = self.subnet.parse().ok();
        let is_network = subnet.is_some_and(|subnet| {
            let names = [subnet.address().to_string(), note(subnet, self.namespace)];
            subnet.guest() == self.guest && names.iter().any(|known| known == name)
        });
        is_tap && is_network
    }

    /// All published ports. The ports of the host are chosen.
    pub fn ports(&self) -> impl Iterator<Item = PortMapping> + '_ {
        self.published.iter().filter_map(|text| text.parse().ok())
    }

    pub fn forwarded(&self) -> impl Iterator<Item = Forwarded> + '_ {
        self.ports().filter_map(|mapping| {
            let HostPort::Fixed(host) = mapping.host else {
                return None;
            };
            let at = match mapping.address {
                HostAddress::All => None,
                HostAddress::Ip(IpAddr::V4(at)) if at.is_unspecified() => None,
                HostAddress::Ip(IpAddr::V4(at)) if !at.is_loopback() => Some(at),
                HostAddress::Localhost | HostAddress::Ip(_) => return None,
            };
            Some(Forwarded {
                at,
                protocol: mapping.protocol,
                host,
                guest: mapping.guest,
            })
        })
    }
}

#[cfg(test)]
impl Record {
    /// That of a guest with this network, in a namespace of numbers that nobody has.
    pub fn of(subnet: &str, pid: u32) -> Self {
        let subnet: Subnet = subnet.parse().unwrap();
        Self {
            pid,
            namespace: 7,
            cookie: 8,
            tap: format!("{TAP_PREFIX}{pid}"),
            index: pid,
            subnet: subnet.to_string(),
            guest: subnet.guest(),
            published: vec![],
            dns: None,
            egress: Egress::default(),
            cell: None,
        }
    }
}

/// The name of a lease. What a killed VM has left in another namespace is not overwritten by who gets its network here.
pub(super) fn note(subnet: Subnet, namespace: u64) -> String {
    format!("{}-{namespace}", subnet.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_kvmlet_cannot_have_written_are_not_believed() {
        let good = Record {
            pid: 1,
            namespace: 1,
            cookie: 1,
            tap: "kvmlet12".into(),
            index: 12,
            subnet: "10.107.0.4/30".into(),
            guest: Ipv4Addr::new(10, 107, 0, 6),
            published: vec![],
            dns: None,
            egress: Egress::All,
            cell: None,
        };
        assert!(good.is_credible("10.107.0.4-1") && good.is_credible("10.107.0.4"));
        assert!(!good.is_credible("10.107.0.4-2"));
        assert!(!good.is_credible("10.107.0.0"));
        for tap in [
            "eth0",
            "kvmlet",
            "kvmlet1234567890",
            "kvmlet0\" } ; flush ruleset",
            "kvmlet/../eth0",
        ] {
            let tap = tap.into();
            let forged = Record {
                tap,
                ..good.clone()
            };
            assert!(!forged.is_credible("10.107.0.4"), "{}", forged.tap);
        }
        let guest = Ipv4Addr::new(192, 0, 2, 1);
        let forged = Record {
            guest,
            ..good.clone()
        };
        assert!(!forged.is_credible("10.107.0.4"));
        let subnet = "0.0.0.0/0".into();
        assert!(!Record { subnet, ..good }.is_credible("0.0.0.0"));
    }
}
