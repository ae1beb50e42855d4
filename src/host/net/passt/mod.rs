//! Interfaces that passt(1) carries, for users who may make no tap: it turns a guest's connections into those of an
//! ordinary process, and needs no right for that.
//!
//! Three processes have a part in it. passt has a stream of frames and the host's network. The VM's has a socket that keeps
//! frames apart, and no network. Between them is a [`Relay`], which lets pass what may: passt alone would connect a guest
//! to whatever its user reaches. Each ends with either of its neighbours.

mod error;
mod filter;
mod flows;
mod handshake;
mod packet;
mod process;
mod relay;
mod routes;

pub use error::Error;
pub use process::{Process, find};
pub use relay::{Relay, carry};

use super::proxy::NameServers;
use super::{Network, choice, publish};
use crate::config::{
    Egress, GuestAddress, HostAddress, HostPort, Interface, MacAddress, Mtu, Net, PortMapping,
    Protocol, Subnet,
};
use filter::{Filter, Policy};
use kvmlet_sys::frames::FrameSocket;
use kvmlet_sys::thread::Serving;
use relay::Link;
use routes::HostRoutes;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What helps where it is not installed.
pub const INSTALL: &str =
    "install it: `sudo apt-get install passt` (other distributions have a package of that name)";
/// The largest packet where none is asked for: what fits into a frame that passt takes. There are no packets of it
/// on a wire, since passt passes bytes on, not packets.
const MTU: u16 = 65520;

/// One interface's passt, and what goes with it.
pub(super) struct Passt {
    /// What the VM takes.
    pub port: Arc<FrameSocket>,
    pub published: Vec<PortMapping>,
    /// Until it is carried.
    idle: Option<Idle>,
    /// Where this process carries it.
    pub threads: Option<(Serving, Process)>,
}

/// What a passt is started with. (It is not yet, so that no process has a copy of its stream that does not serve it.)
struct Idle {
    program: PathBuf,
    arguments: Vec<String>,
    vm: FrameSocket,
    mac: MacAddress,
    subnet: Subnet,
    policy: Policy,
}

impl Passt {
    /// Starts passt and tells what carries its frames, once.
    pub fn relay(&mut self) -> Result<Option<(Relay, Process)>, Error> {
        let Some(idle) = self.idle.take() else {
            return Ok(None);
        };
        let Idle {
            program,
            arguments,
            vm,
            mac,
            subnet,
            policy,
        } = idle;
        let (process, stream) = Process::start(&program, &arguments)?;
        process.await_start(&stream, mac, subnet)?;
        let routes = HostRoutes::open().map_err(|source| Error::Start { source })?;
        let name = policy.guest.to_string();
        let link = Link::new(vm, stream, Filter::new(policy, routes));
        Ok(Some((Relay::new(name, link), process)))
    }
}

/// An interface that passt carries.
pub(super) fn set_up(config: &Net) -> Result<Network, super::Error> {
    if config.queues.get() > 1 {
        let queues = config.queues.get();
        return Err(Error::Queues { queues }.into());
    }
    let program = find().ok_or(Error::Missing)?;
    let published = publish(&config.publish)?;
    let subnet = config.subnet.unwrap_or_else(next_subnet);
    let egress = config.egress.unwrap_or_default();
    let servers = match egress {
        Egress::None => Vec::new(),
        _ => name_servers(&config.dns),
    };
    let [a, b, c, d] = subnet.guest().octets();
    let interface = Interface {
        mac: config.mac.unwrap_or(MacAddress::local([b'k', a, b, c, d])),
        mtu: Some(config.mtu.map_or(MTU, Mtu::get)),
        guest: Some(GuestAddress {
            address: subnet.guest(),
            prefix: subnet.prefix(),
            gateway: subnet.host(),
            dns: (!servers.is_empty())
                .then(|| subnet.host())
                .into_iter()
                .collect(),
        }),
    };
    let policy = Policy {
        guest: subnet.guest(),
        gateway: subnet.host(),
        egress,
        names: !servers.is_empty(),
        published: published.iter().map(guest_port).collect(),
    };
    let sockets = FrameSocket::pair().map_err(|source| Error::Start { source });
    let (near, far) = sockets?;
    let arguments = arguments(subnet, &interface, &servers, &published);
    let mut warnings = Vec::new();
    if servers.is_empty() && egress != Egress::None {
        warnings.push(
            "the guest can look up no names: passt asks a name server at an address of IPv4, and /etc/resolv.conf of \
             this host has none; name one with `dns`"
                .into(),
        );
    }
    let idle = Idle {
        program,
        arguments,
        vm: far,
        mac: interface.mac,
        subnet,
        policy,
    };
    let passt = Passt {
        port: Arc::new(near),
        published,
        idle: Some(idle),
        threads: None,
    };
    Ok(Network {
        carrier: super::Carrier::Passt(passt),
        interface,
        warnings,
        made: None,
        lent: Vec::new(),
        metadata: None,
    })
}

/// What passt is told.
fn arguments(
    subnet: Subnet,
    interface: &Interface,
    servers: &[Ipv4Addr],
    published: &[PortMapping],
) -> Vec<String> {
    let [a, b, c, d] = subnet.host().octets();
    let mut arguments: Vec<String> = ["--foreground", "--quiet", "--ipv4-only", "--no-dhcp"]
        .map(String::from)
        .into();
    // This host's loopback is nobody's whom the gateway's address would lead there. By that address passt finds the
    // way back to programs on this host as well, where they have come by UDP: then the filter is all that there is.
    if published.iter().all(|port| port.protocol == Protocol::Tcp) {
        arguments.push("--no-map-gw".into());
    }
    let mut say = |name: &str, value: String| arguments.extend([name.into(), value]);
    // Standard input.
    say("--fd", "0".into());
    say("--address", subnet.guest().to_string());
    say("--netmask", subnet.prefix().to_string());
    say("--gateway", subnet.host().to_string());
    // Not the host's own, which is nobody's to know.
    say(
        "--mac-addr",
        MacAddress::local([b'g', a, b, c, d]).to_string(),
    );
    say("--mtu", interface.mtu.unwrap_or(MTU).to_string());
    match servers.first() {
        None => say("-D", "none".into()),
        Some(first) => {
            say("-D", first.to_string());
            say("--dns-forward", subnet.host().to_string());
        }
    }
    for mapping in published {
        let flag = match mapping.protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        let at = match at(mapping) {
            Some(address) if !address.is_unspecified() => format!("{address}/"),
            _ => String::new(),
        };
        let HostPort::Fixed(host) = mapping.host else {
            continue;
        };
        say(flag, format!("{at}{host}:{}", mapping.guest));
    }
    arguments
}

/// Where a port is published: at which address of IPv4.
fn at(mapping: &PortMapping) -> Option<Ipv4Addr> {
    match mapping.address {
        HostAddress::All => Some(Ipv4Addr::UNSPECIFIED),
        HostAddress::Localhost => Some(Ipv4Addr::LOCALHOST),
        HostAddress::Ip(IpAddr::V4(address)) => Some(address),
        HostAddress::Ip(IpAddr::V6(_)) => None,
    }
}

fn guest_port(mapping: &PortMapping) -> (u8, u16) {
    let protocol = match mapping.protocol {
        Protocol::Tcp => packet::TCP,
        Protocol::Udp => packet::UDP,
    };
    (protocol, mapping.guest.get())
}

/// The ports of the host that are to be had, with those that it chooses. passt takes them by itself, so they are free for
/// a moment in between; who is quicker then is told by passt.
fn publish(ports: &[PortMapping]) -> Result<Vec<PortMapping>, super::Error> {
    let of_ipv4 = |mapping: &PortMapping| {
        let mapping = *mapping;
        let address = at(&mapping).ok_or(Error::Ipv6 { mapping })?;
        let address = HostAddress::Ip(address.into());
        Ok(PortMapping { address, ..mapping })
    };
    let wanted: Vec<PortMapping> = ports.iter().map(of_ipv4).collect::<Result<_, Error>>()?;
    let taken = publish::take(&wanted, None)?.mappings;
    let chosen = ports.iter().zip(taken);
    // As the user has said it.
    let chosen = chosen.map(|(port, PortMapping { host, .. })| PortMapping { host, ..*port });
    Ok(chosen.collect())
}

/// Servers that passt can ask.
fn name_servers(wanted: &[IpAddr]) -> Vec<Ipv4Addr> {
    let servers = NameServers::new(wanted);
    let servers = servers
        .known()
        .iter()
        .filter_map(|server| match server.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
    servers.collect()
}

/// A network that no other interface of this process's VMs has. It is seen by its guest only.
fn next_subnet() -> Subnet {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    choice::beside_leases(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests;
