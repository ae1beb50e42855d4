//! Interfaces of kvmlet's own: what is made for one, and taken down at its end.

use super::forwarding::Loan;
use super::lease::{self, Lease, Leases};
use super::look::Look;
use super::name_service::{self, NameService};
use super::namespace::Namespace;
use super::nat::Ways;
use super::nft::News;
use super::proxy::{Offer, Seats};
use super::publish::{self, Published};
use super::reap::{Ended, reap, reap_and_keep};
use super::record::{Record, TAP_PREFIX};
use super::tap::Tap;
use super::turn::Turn;
use super::watch::Guarded;
use super::{Carrier, Error, Network, choice, link, patience};
use crate::config::{
    Egress, GuestAddress, Interface, MacAddress, Mtu, Net, PortMapping, Protocol, Subnet,
};
use crate::shares::descriptors::Reserved;
use crate::state::runtime::RuntimeDirectory;
use kvmlet_sys::thread::{self, Serving};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd};

/// What kvmlet has set up, and undoes.
pub(super) struct Made {
    runtime: RuntimeDirectory,
    pub(super) lease: Lease,
    /// Interfaces that are given back at the end.
    borrowed: Vec<Loan>,
    pub(super) published: Vec<PortMapping>,
    /// Until it is served.
    pub(super) offer: Option<Offer>,
    pub(super) guarded: Option<Guarded>,
    pub(super) threads: Vec<Serving>,
    /// For the proxy's clients.
    _descriptors: Reserved,
}

impl Network {
    pub(super) fn make(config: &Net, runtime: &RuntimeDirectory) -> Result<Self, Error> {
        let (seats, descriptors) = seats(&config.publish)?;
        // Whoever waits here has no lock.
        let (mut leases, published) = patience::in_turn(|| {
            let mut leases = lease::lock(runtime)?;
            reap(&mut leases, None)?;
            let published = publish::take(&config.publish, Some(&mut leases))?;
            if let Some(subnet) = config.subnet {
                choice::check_network(&mut leases, subnet)?;
            }
            Ok((leases, published))
        })?;
        let taken = leases.taken()?;
        let tap = Tap::create_numbered(TAP_PREFIX, taken.number(), config.queues.get().into())?;
        // Until the host has its address in it.
        let _turn = Turn::take()?;
        let mut look = Look::after(taken.seen(Namespace::here()));
        let subnet = choice::choose_network(&mut leases, config.subnet, &mut look)?;
        let names = NameService::bind(subnet, &config.dns)?;
        // Questions about names are a way out, too.
        let egress = config.egress.unwrap_or_default();
        let asks = egress != Egress::None;
        let ports = asks.then(|| names.ports());
        let mappings = &published.mappings;
        let link = link::Socket::open();
        let numbered = link.and_then(|link| Ok((link.index(tap.name())?, link)));
        let (index, link) = numbered.map_err(|source| Error::Link {
            name: tap.name().into(),
            what: "read the number",
            source,
        })?;
        let named = (tap.name(), index);
        let clients = look.clients(&link, index);
        let seen = look.now;
        let mut lease = lease::take(&mut leases, named, subnet, mappings, ports, egress, seen)?;
        let mtu = config.mtu.unwrap_or(Mtu::ETHERNET).get();
        let [a, b, c, d] = subnet.guest().octets();
        // From here on dropping `network` undoes what was done.
        let interface = Interface {
            mac: config.mac.unwrap_or(MacAddress::local([b'k', a, b, c, d])),
            mtu: Some(mtu),
            guest: Some(GuestAddress {
                address: subnet.guest(),
                prefix: subnet.prefix(),
                gateway: subnet.host(),
                dns: asks.then(|| subnet.host()).into_iter().collect(),
            }),
        };
        let mut network = Self {
            interface,
            warnings: [
                names.warning().filter(|_| asks),
                fewer(&config.publish, seats),
            ]
            .into_iter()
            .flatten()
            .collect(),
            made: None,
            lent: Vec::new(),
            metadata: None,
            carrier: Carrier::Tap(tap),
        };
        let guarded = network.open_ways(&mut leases, lease.record(), &clients);
        let guarded = guarded.and_then(|ways| {
            network.bring_up(&link, config, subnet, mtu)?;
            if asks {
                network.check_names(&names, subnet);
            }
            let news = News::subscribe().map_err(|source| Error::Rules { source })?;
            Ok(Guarded {
                runtime: runtime.clone(),
                record: lease.record().clone(),
                ways,
                news,
                link,
                stopped: false,
            })
        });
        match guarded {
            Ok(guarded) => {
                network.made = Some(Made {
                    runtime: runtime.clone(),
                    lease,
                    borrowed: guarded.ways.borrowed().to_vec(),
                    published: published.mappings.clone(),
                    offer: Some(offer(seats, published, names, subnet.guest())),
                    guarded: Some(guarded),
                    threads: Vec::new(),
                    _descriptors: descriptors,
                });
                Ok(network)
            }
            Err(error) => {
                lease.let_go();
                let _ = reap(&mut leases, None);
                Err(error)
            }
        }
    }

    /// Where a firewall keeps the guest from asking this host for names, it is left to ask others.
    fn check_names(&mut self, names: &NameService, subnet: Subnet) {
        let Some(tap) = self.carrier.tap() else {
            return;
        };
        if names.is_reached(tap, self.interface.mac, subnet) {
            return;
        }
        let direct = names.direct();
        self.warnings
            .push(name_service::unreached(tap.name(), &direct));
        if let Some(guest) = self.interface.guest.as_mut().filter(|_| !direct.is_empty()) {
            guest.dns = direct;
        }
    }

    /// Makes the rules for the guest's packets, before any can come.
    fn open_ways(
        &mut self,
        leases: &mut Leases,
        record: &Record,
        clients: &[String],
    ) -> Result<Ways, Error> {
        let mut ways = Ways::open(leases)?;
        let warnings = ways.add(leases, record, clients)?;
        self.warnings.extend(warnings);
        Ok(ways)
    }

    fn bring_up(
        &self,
        link: &link::Socket,
        config: &Net,
        subnet: Subnet,
        mtu: u16,
    ) -> Result<(), Error> {
        let name = self.tap().unwrap_or_default();
        let failed = |what| {
            move |source| Error::Link {
                name: name.into(),
                what,
                source,
            }
        };
        link::disable_ipv6(name);
        if config.mtu.is_some() {
            link.set_mtu(name, mtu).map_err(failed("set the MTU"))?;
        }
        link.set_address(name, subnet)
            .map_err(failed("set the address"))?;
        link.set_up(name, true).map_err(failed("change the state"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.let_go();
        if let (Some(made), Carrier::Tap(tap)) = (self.made.take(), &mut self.carrier) {
            // The tap goes with its last queue, which a device may still hold.
            if tap.is_held()
                && let Ok(socket) = link::Socket::open()
            {
                let _ = socket.set_up(tap.name(), false);
            }
            made.depart(tap);
        }
    }
}

impl Network {
    /// What others wait for of its end: from now on they may have its addresses, and what it has left over may be cleared by
    /// whoever comes next.
    pub(super) fn let_go(&mut self) {
        let Some(made) = &mut self.made else {
            return;
        };
        // What is closed now is not to be put back. And the proxy may hold all descriptors that this process may have.
        made.threads.clear();
        made.guarded = None;
        if let Carrier::Tap(tap) = &self.carrier
            && let Ok(socket) = link::Socket::open()
        {
            let _ = socket.clear_address(tap.name());
        }
        made.lease.let_go();
    }

    /// The rest, in a process that has nothing open but [these](Self::descriptors), and never returns. What it returns is
    /// better not closed at once.
    pub(super) fn depart(mut self) -> Option<Ways> {
        let ways = match (&self.made, &mut self.carrier) {
            (Some(made), Carrier::Tap(tap)) => made.depart(tap),
            _ => None,
        };
        std::mem::forget(self);
        ways
    }

    /// What its end takes: queues of a tap, and the notes.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let notes = self.made.iter().map(|made| made.runtime.as_fd());
        notes.chain(self.queues().iter().map(|queue| queue.as_fd()))
    }
}

impl Made {
    /// Nobody sends anything by the tap any more, so it does not matter which is gone first.
    fn depart(&self, tap: &mut Tap) -> Option<Ways> {
        thread::beside("tap", || tap.close(), || self.clear()).1
    }

    /// Takes the rules away, and gives the network back.
    fn clear(&self) -> Option<Ways> {
        match lease::lock(&self.runtime) {
            Ok(mut leases) => {
                let ended = Ended {
                    lease: &self.lease,
                    borrowed: &self.borrowed,
                };
                match reap_and_keep(&mut leases, Some(ended)) {
                    Ok(ways) => return ways,
                    Err(error) => log::warn!("the network of a VM is left over: {error}"),
                }
            }
            // The next command finds the lease and clears what it names.
            Err(error) => log::warn!("the network of a VM is left over: {error}"),
        }
        None
    }
}

/// Fewest and most clients of published ports.
fn range(ports: &[PortMapping]) -> [Seats; 2] {
    let some = |protocol| ports.iter().any(|port| port.protocol == protocol);
    Seats::range(some(Protocol::Tcp), some(Protocol::Udp))
}

/// How much is served at a time, with descriptors for it.
fn seats(ports: &[PortMapping]) -> Result<(Seats, Reserved), Error> {
    let range = range(ports);
    let [least, most] = range.map(Seats::descriptors);
    let reserved = Reserved::take(least, most)?;
    Ok((Seats::within(range, reserved.count()), reserved))
}

/// What the user should know: that fewer clients are served than usual.
fn fewer(ports: &[PortMapping], seats: Seats) -> Option<String> {
    let [_, most] = range(ports);
    (!ports.is_empty() && seats != most).then(|| {
        format!(
            "published ports serve {} clients at a time instead of {}, for lack of descriptors; let this process \
             have more: `ulimit -n 2048`, or LimitNOFILE=2048 in its unit",
            seats.tcp + seats.udp,
            most.tcp + most.udp
        )
    })
}

/// What is to be served for a guest.
fn offer(seats: Seats, published: Published, names: NameService, guest: Ipv4Addr) -> Offer {
    let to_guest = |port: NonZeroU16| SocketAddr::from((guest, port.get()));
    let tcp = published.tcp.into_iter();
    let udp = published.udp.into_iter();
    Offer {
        seats,
        tcp: tcp.map(|(socket, port)| (socket, to_guest(port))).collect(),
        udp: udp.map(|(socket, port)| (socket, to_guest(port))).collect(),
        dns: Some(names.offer(guest)),
    }
}
