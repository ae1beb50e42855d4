//! Who has which network: a [claim](crate::state::claims) for each interface that kvmlet has made.

use super::link::Route;
use super::namespace::Namespace;
use super::{Error, link};
use crate::config::{Egress, HostAddress, HostPort, PortMapping, Protocol, Subnet};
use crate::state::claims::{Claim, Claims};
use crate::state::runtime::RuntimeDirectory;
use kvmlet_sys::environment;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

/// Where networks are taken from, in this order: the first range that no route of the host touches but those
/// to kvmlet's own interfaces.
const RANGES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 107, 0, 0), 16),
    (Ipv4Addr::new(172, 30, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 107, 0), 24),
];
/// A network, two hosts, and a broadcast address.
const PREFIX: u8 = 30;
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

/// The directory of leases, locked against other processes until this value is dropped.
pub(super) type Leases = Claims<Record>;
/// A lease that this process holds.
pub(super) type Lease = Claim<Record>;

const DIRECTORY: &str = "net";

/// Locks the leases in the runtime directory, and makes their directory if it is not there.
pub(super) fn lock(runtime: &RuntimeDirectory) -> Result<Leases, Error> {
    Ok(Leases::lock(runtime, DIRECTORY)?)
}

/// The same, if nobody else has them locked just now.
///
/// # Errors
/// [`Busy`](claims::Error::Busy) if somebody has.
pub(super) fn lock_at_once(runtime: &RuntimeDirectory) -> Result<Leases, Error> {
    Ok(Leases::lock_at_once(runtime, DIRECTORY)?)
}

/// Locks the leases if there ever were some.
pub(super) fn lock_existing(runtime: &RuntimeDirectory) -> Result<Option<Leases>, Error> {
    Ok(Leases::lock_existing(runtime, DIRECTORY)?)
}

/// A network for a guest: the given one, or one that is free.
pub(super) fn choose_network(leases: &Leases, wanted: Option<Subnet>) -> Result<Subnet, Error> {
    let ours = |subnet: &Subnet| RANGES.iter().any(|range| is_within(*subnet, *range));
    if let Some(subnet) = wanted.filter(|subnet| !ours(subnet))
        && environment::is_privileged_by_file()
    {
        // Whoever may choose decides where the packets of all users go.
        return Err(Error::SubnetOfOthers { subnet });
    }
    let (live, _) = leases.all()?;
    let taken = |record: &Record| Some((record.subnet.parse().ok()?, record.pid));
    let taken: Vec<_> = live.iter().filter_map(taken).collect();
    let routes = link::routes().map_err(|source| Error::Routes { source })?;
    let taps: Vec<&str> = live.iter().map(|record| &*record.tap).collect();
    choose(wanted, &taken, &routes, &taps)
}

/// Takes a network that was chosen for a tap, with the host's ports that go with it.
pub(super) fn take(
    leases: &Leases,
    (tap, index): (&str, u32),
    subnet: Subnet,
    published: &[PortMapping],
    dns: Option<DnsPorts>,
    egress: Egress,
) -> Result<Lease, Error> {
    let here = Namespace::here();
    let record = Record {
        pid: std::process::id(),
        namespace: here.inode,
        cookie: here.cookie,
        tap: tap.into(),
        index,
        subnet: subnet.to_string(),
        guest: subnet.guest(),
        published: published.iter().map(PortMapping::to_string).collect(),
        dns,
        egress,
    };
    Ok(leases.claim(&note(subnet, here.inode), record)?)
}

/// The name of a lease. What a killed VM has left in another namespace is not overwritten by who gets its network here.
fn note(subnet: Subnet, namespace: u64) -> String {
    format!("{}-{namespace}", subnet.address())
}

/// The guests of this owner in this network namespace.
pub(super) fn live_here(leases: &Leases) -> Result<Vec<Record>, Error> {
    let (mut live, _) = leases.all()?;
    let here = Namespace::here();
    live.retain(|record| record.is_of(here));
    Ok(live)
}

/// `taken` are networks with the processes of their guests, who have the `taps`.
fn choose(
    wanted: Option<Subnet>,
    taken: &[(Subnet, u32)],
    routes: &[Route],
    taps: &[&str],
) -> Result<Subnet, Error> {
    let route = |subnet: Subnet| {
        let overlaps = |route: &&Route| !route.is_default() && route.overlaps(subnet);
        routes.iter().find(overlaps)
    };
    let holder = |subnet: Subnet| taken.iter().find(|(other, _)| overlap(*other, subnet));
    if let Some(subnet) = wanted {
        return match (holder(subnet), route(subnet)) {
            (Some((_, by)), _) => Err(Error::SubnetTaken { subnet, by: *by }),
            (None, Some(route)) => Err(Error::SubnetRouted {
                subnet,
                route: route.to_string(),
                is_left: route.interface.starts_with(TAP_PREFIX)
                    && !taps.contains(&&*route.interface),
            }),
            (None, None) => Ok(subnet),
        };
    }
    let is_free = |subnet: &Subnet| holder(*subnet).is_none() && route(*subnet).is_none();
    let mut in_the_way = None;
    for (start, prefix) in RANGES {
        let range = Subnet::new(start, prefix);
        let foreign = routes.iter().find(|route| {
            !route.is_default()
                && !route.interface.starts_with(TAP_PREFIX)
                && range.is_some_and(|range| route.overlaps(range))
        });
        if let Some(route) = foreign {
            in_the_way = Some(route.to_string());
            continue;
        }
        let step = 1 << (32 - PREFIX);
        let end = start.to_bits() | (u32::MAX >> prefix);
        let mut candidates = (start.to_bits()..=end)
            .step_by(step)
            .filter_map(|address| Subnet::new(Ipv4Addr::from_bits(address), PREFIX));
        if let Some(free) = candidates.find(is_free) {
            return Ok(free);
        }
    }
    Err(Error::NoSubnet { route: in_the_way })
}

/// A network for a guest whose network nobody but itself sees: from the end of a range, where leases come last, and if
/// possible of a range that this host has no route to.
pub(super) fn beside_leases(number: u32) -> Subnet {
    let routes = link::routes().unwrap_or_default();
    let is_foreign = |range: Subnet| {
        let mut routes = routes.iter().filter(|route| !route.is_default());
        routes.any(|route| !route.interface.starts_with(TAP_PREFIX) && route.overlaps(range))
    };
    let mut ranges = RANGES.iter().copied();
    let unused = ranges.find(|(start, prefix)| {
        Subnet::new(*start, *prefix).is_some_and(|range| !is_foreign(range))
    });
    let (start, prefix) = unused.unwrap_or(RANGES[0]);
    let networks = 1 << (PREFIX - prefix);
    let network = networks - 1 - number % networks;
    let address = Ipv4Addr::from_bits(start.to_bits() | network << (32 - PREFIX));
    Subnet::new(address, PREFIX).unwrap_or_else(|| unreachable!("ranges are of networks for hosts"))
}

fn is_within(subnet: Subnet, (start, prefix): (Ipv4Addr, u8)) -> bool {
    let range = Subnet::new(start, prefix);
    range.is_some_and(|range| subnet.prefix() >= prefix && overlap(subnet, range))
}

fn overlap(a: Subnet, b: Subnet) -> bool {
    (a.address().to_bits() ^ b.address().to_bits()) & a.mask() & b.mask() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str, interface: &str) -> Route {
        let subnet: Subnet = text.parse().unwrap();
        Route {
            interface: interface.into(),
            destination: subnet.address().to_bits(),
            mask: subnet.mask(),
        }
    }

    #[test]
    fn networks_avoid_leases_and_routes() {
        let choice = |taken: &[&str], routes: &[Route]| {
            let taken = taken.iter().map(|text| (text.parse().unwrap(), 1));
            choose(None, &taken.collect::<Vec<_>>(), routes, &[]).map(|subnet| subnet.to_string())
        };
        assert_eq!(choice(&[], &[]).unwrap(), "10.107.0.0/30");
        assert_eq!(choice(&["10.107.0.0/30"], &[]).unwrap(), "10.107.0.4/30");
        assert_eq!(choice(&["10.107.0.0/29"], &[]).unwrap(), "10.107.0.8/30");
        let ours = route("10.107.0.0/30", "kvmlet0");
        assert_eq!(choice(&[], &[ours]).unwrap(), "10.107.0.4/30");
        let vpn = route("10.0.0.0/8", "tun0");
        assert_eq!(
            choice(&[], std::slice::from_ref(&vpn)).unwrap(),
            "172.30.0.0/30"
        );
        let all = [
            vpn,
            route("172.16.0.0/12", "a"),
            route("192.168.0.0/16", "b"),
        ];
        let error = choice(&[], &all).unwrap_err().to_string();
        assert!(error.contains("192.168.0.0/16 on b"), "{error}");
        // What is asked for may be anywhere but in the way.
        let asked = Some("10.107.9.0/24".parse().unwrap());
        assert!(choose(asked, &[], &all[1..], &[]).is_ok());
        assert!(choose(asked, &[], &all, &[]).is_err());
        let taken = ("10.107.9.4/30".parse().unwrap(), 7);
        let error = choose(asked, &[taken], &[], &[]).unwrap_err();
        assert!(matches!(error, Error::SubnetTaken { by: 7, .. }));
        // An interface of kvmlet's that no guest has is about to go.
        let ours = [route("10.107.9.0/30", "kvmlet3")];
        for (taps, left) in [(&["kvmlet3"][..], false), (&["kvmlet4"], true)] {
            let error = choose(asked, &[], &ours, taps).unwrap_err();
            assert!(matches!(error, Error::SubnetRouted { is_left, .. } if is_left == left));
        }
    }

    #[test]
    fn ranges_hold_networks_as_a_whole() {
        let within = |text: &str| {
            let subnet = text.parse().unwrap();
            RANGES.iter().any(|range| is_within(subnet, *range))
        };
        assert!(within("10.107.255.252/30") && within("192.168.107.0/24"));
        assert!(!within("10.0.0.0/8") && !within("1.1.1.0/30") && !within("192.168.106.0/23"));
    }

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

    #[test]
    fn what_a_killed_owner_had_is_known() {
        let place = tempfile::tempdir().unwrap();
        let leases = lock(&RuntimeDirectory::at(place.path()).unwrap()).unwrap();
        let one = choose_network(&leases, None).unwrap();
        let first = take(&leases, ("kvmlet0", 1), one, &[], None, Egress::All).unwrap();
        let other = choose_network(&leases, None).unwrap();
        let _second = take(&leases, ("kvmlet1", 2), other, &[], None, Egress::All).unwrap();
        assert_ne!(one, other);
        drop(first);
        let (live, stale) = leases.all().unwrap();
        assert_eq!((live.len(), stale.len()), (1, 1));
        assert_eq!(stale[0].1.as_ref().unwrap().tap, "kvmlet0");
    }
}
