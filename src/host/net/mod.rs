//! The host's side of a guest's network: taps, addresses, the way out, and published ports.
//!
//! A [`Network`] is a tap of somebody else's, or one that kvmlet has made in a network of two: the host has
//! its first address and the guest its second. With nftables, which does both, the guest reaches what the
//! host reaches, as the host; and published ports lead to the guest. What is reachable:
//!
//! - The host reaches every port of the guest at the guest's address.
//! - Others reach published ports only. They see them at the host's addresses, or at the one that was named.
//!   Clients elsewhere come by DNAT, so the guest sees their addresses; clients on the host itself, and all
//!   where DNAT cannot be, come through a proxy in this process and appear as the host.
//! - A guest reaches what the host's routes lead to, but of the host itself and of other guests only published
//!   ports. It can ping the host. It cannot use addresses that are not its own. There is no IPv6.
//!
//! Rootless networking through passt, which would be another [port](crate::devices::virtio::net::Port), is not
//! there.

mod error;
#[cfg(test)]
pub(crate) mod isolation;
mod lease;
mod link;
mod nat;
mod resolver;
mod tap;
mod tcp_proxy;
mod udp_proxy;

pub use error::Error;
pub use tap::{Tap, TapQueue};

use crate::config::{MacAddress, Mtu, Net, PortMapping, Protocol};
use lease::{Lease, Leases, Record};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tcp_proxy::TcpProxy;
use udp_proxy::UdpProxy;

/// Where kvmlet notes what it has set up: `/run/kvmlet` for root, `$XDG_RUNTIME_DIR/kvmlet` for others.
pub fn runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !user.is_root() => PathBuf::from(directory).join("kvmlet"),
        None if !user.is_root() => std::env::temp_dir().join(format!("kvmlet-{}", user.as_raw())),
        _ => PathBuf::from("/run/kvmlet"),
    }
}

/// What a guest must be told to use its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestAddress {
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// The host's address, where the default route leads.
    pub gateway: Ipv4Addr,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// The host's side of one interface of a guest. Dropping it takes down what it has set up.
pub struct Network {
    tap: Tap,
    mac: MacAddress,
    mtu: Option<u16>,
    guest: Option<GuestAddress>,
    warnings: Vec<String>,
    made: Option<Made>,
}

/// What kvmlet has set up, and undoes.
struct Made {
    runtime: PathBuf,
    lease: Lease,
    _tcp: Option<TcpProxy>,
    _udp: Option<UdpProxy>,
}

impl Network {
    /// Opens the tap that the configuration names, or makes one with all that goes with it. `runtime` is the
    /// [directory](runtime_directory) of notes. What is left over from VMs that were killed is cleared.
    ///
    /// # Errors
    /// When it cannot be had; each error knows a [way out](Error::help), mostly. That the guest reaches only
    /// the host is not an error but a [warning](Self::warnings).
    pub fn set_up(config: &Net, runtime: &Path) -> Result<Self, Error> {
        match &config.tap {
            Some(name) => Self::open(name, config),
            None => Self::make(config, runtime),
        }
    }

    fn open(name: &str, config: &Net) -> Result<Self, Error> {
        let tap = Tap::open(name, config.queues.get().into())?;
        let link = |source| Error::Link {
            name: name.into(),
            what: "read the settings",
            source,
        };
        let socket = link::Socket::open().map_err(link)?;
        let mtu = socket.mtu(name).map_err(link)?;
        let mut warnings = Vec::new();
        if !socket.is_up(name) {
            warnings.push(format!(
                "the tap `{name}` is down and carries nothing; bring it up with `sudo ip link set {name} up`"
            ));
        }
        let mac = match config.mac {
            Some(mac) => mac,
            None => random_mac(),
        };
        Ok(Self {
            tap,
            mac,
            mtu: u16::try_from(mtu).ok().filter(|mtu| *mtu >= 68),
            guest: None,
            warnings,
            made: None,
        })
    }

    fn make(config: &Net, runtime: &Path) -> Result<Self, Error> {
        let leases = Leases::lock(runtime)?;
        let others = reap(&leases, None)?;
        let name = format!("{}%d", lease::TAP_PREFIX);
        let tap = Tap::create(&name, config.queues.get().into())?;
        let (lease, subnet) = leases.take(tap.name(), config.subnet, &config.publish)?;
        let mtu = config.mtu.unwrap_or(Mtu::ETHERNET).get();
        let [a, b, c, d] = subnet.guest().octets();
        // From here on dropping `network` undoes what was done.
        let mut network = Self {
            mac: config.mac.unwrap_or(MacAddress::local([b'k', a, b, c, d])),
            mtu: Some(mtu),
            guest: Some(GuestAddress {
                address: subnet.guest(),
                prefix: subnet.prefix(),
                gateway: subnet.host(),
                dns: resolver::name_servers(),
            }),
            warnings: Vec::new(),
            made: None,
            tap,
        };
        let result = network.bring_up(config, subnet, mtu).and_then(|()| {
            let (tcp, udp) = publish(&config.publish, subnet.guest())?;
            match nat::add(&leases, &lease.record, others.is_empty()) {
                Ok(warnings) => network.warnings = warnings,
                Err(error) => network.warnings.push(no_way_out(&error)),
            }
            Ok((tcp, udp))
        });
        match result {
            Ok((tcp, udp)) => {
                network.made = Some(Made {
                    runtime: runtime.into(),
                    lease,
                    _tcp: tcp,
                    _udp: udp,
                });
                Ok(network)
            }
            Err(error) => {
                leases.release(&lease);
                Err(error)
            }
        }
    }

    fn bring_up(&self, config: &Net, subnet: crate::config::Subnet, mtu: u16) -> Result<(), Error> {
        let name = self.tap.name();
        let failed = |what| {
            move |source| Error::Link {
                name: name.into(),
                what,
                source,
            }
        };
        let socket = link::Socket::open().map_err(failed("set the address"))?;
        link::disable_ipv6(name);
        if config.mtu.is_some() {
            socket.set_mtu(name, mtu).map_err(failed("set the MTU"))?;
        }
        socket
            .set_address(name, subnet)
            .map_err(failed("set the address"))?;
        socket
            .set_up(name, true)
            .map_err(failed("change the state"))
    }

    /// The queues, for the device: as many as the configuration asks for.
    pub fn queues(&self) -> &[Arc<TapQueue>] {
        self.tap.queues()
    }

    /// The tap's name.
    pub fn tap(&self) -> &str {
        self.tap.name()
    }

    /// The guest's hardware address.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The tap's MTU in bytes, for the device to tell.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// The guest's address, if kvmlet has chosen it.
    pub fn guest(&self) -> Option<&GuestAddress> {
        self.guest.as_ref()
    }

    /// What will not work, in words for the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let Some(made) = self.made.take() else {
            return;
        };
        // The tap goes with its last queue, which a device may still hold; its address is free before.
        if let Ok(socket) = link::Socket::open() {
            let name = self.tap.name();
            let _ = socket
                .clear_address(name)
                .and_then(|()| socket.set_up(name, false));
        }
        match Leases::lock(&made.runtime) {
            Ok(leases) => {
                leases.release(&made.lease);
                if let Err(error) = reap(&leases, Some(&made.lease.record)) {
                    log::warn!("the network of a VM is left over: {error}");
                }
            }
            // The next command finds the lease and clears what it names.
            Err(error) => log::warn!("the network of a VM is left over: {error}"),
        }
    }
}

fn no_way_out(error: &Error) -> String {
    let help = error
        .help()
        .map_or(String::new(), |help| format!("; {help}"));
    format!("the guest reaches nothing but this host, as there is no NAT: {error}{help}")
}

fn random_mac() -> MacAddress {
    let mut end = [0; 5];
    // An address that is not so random serves, too.
    let _ = rustix::rand::getrandom(&mut end, rustix::rand::GetRandomFlags::empty());
    MacAddress::local(end)
}

/// Takes the host's ports, and serves those who come to them on the host.
fn publish(
    ports: &[PortMapping],
    guest: Ipv4Addr,
) -> Result<(Option<TcpProxy>, Option<UdpProxy>), Error> {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for mapping in ports {
        let here = SocketAddrV4::new(
            mapping.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            mapping.host.get(),
        );
        let there = SocketAddrV4::new(guest, mapping.guest.get());
        let failed = |source| Error::Publish {
            mapping: *mapping,
            source,
        };
        match mapping.protocol {
            Protocol::Tcp => tcp.push((TcpListener::bind(here).map_err(failed)?, there)),
            Protocol::Udp => udp.push((UdpSocket::bind(here).map_err(failed)?, there)),
        }
    }
    let failed = |source| Error::Proxy { source };
    let start_tcp = || TcpProxy::start(tcp);
    let start_udp = || UdpProxy::start(udp);
    let has = |protocol| ports.iter().any(|mapping| mapping.protocol == protocol);
    let tcp = has(Protocol::Tcp)
        .then(start_tcp)
        .transpose()
        .map_err(failed)?;
    let udp = has(Protocol::Udp)
        .then(start_udp)
        .transpose()
        .map_err(failed)?;
    Ok((tcp, udp))
}

/// Clears what a VM that ends, and those that were killed, have left over; returns those that live in this
/// network namespace.
fn reap(leases: &Leases, ending: Option<&Record>) -> Result<Vec<Record>, Error> {
    let (mut live, stale) = leases.all()?;
    let here = lease::namespace();
    live.retain(|record| record.namespace == here);
    let mut gone: Vec<Record> = ending.cloned().into_iter().collect();
    for (path, record) in stale {
        // The tap itself went with its owner. What is left in another namespace goes with that, or when the
        // next VM there is the first.
        gone.extend(record.filter(|record| record.namespace == here));
        leases.remove(&path);
    }
    if !gone.is_empty() {
        nat::remove(leases, &gone, live.is_empty());
    }
    Ok(live)
}

/// Clears what VMs have left over that were killed. Every command that deals with VMs does so first.
///
/// # Errors
/// When the [directory](runtime_directory) of notes cannot be used.
pub fn reap_stale(runtime: &Path) -> Result<(), Error> {
    // Nothing was ever set up: there is no need to make a directory for it.
    if !runtime.join("net").is_dir() {
        return Ok(());
    }
    reap(&Leases::lock(runtime)?, None).map(drop)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
#[cfg(test)]
mod traffic_tests;
