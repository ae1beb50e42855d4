//! The host's side of a guest's network: taps, addresses, the way out, and published ports.
//!
//! A [`Network`] is a tap of somebody else's, or one that kvmlet has made in a network of two: the host has
//! its first address and the guest its second. Rules of nf_tables let the guest
//! out, as the host, and lead published ports to it; without them there is no interface. What is reachable:
//!
//! - The host reaches every port of the guest at the guest's address.
//! - Others reach published ports only. They see them at the host's addresses, or at the one that was named.
//!   Clients elsewhere come by DNAT, so the guest sees their addresses; clients on the host itself, those of IPv6,
//!   and all where DNAT cannot be, come through a proxy in this process and appear as the host.
//! - A guest reaches what the host's routes lead to, but of the host itself and of other guests only published
//!   ports, and it asks the host for names. It can ping the host. It cannot use addresses that are not its own.
//!   Between host and guest there is no IPv6.
//!
//! For those who may make no tap, [passt] carries an interface instead: it has sockets of its user's on one side and
//! the guest's frames on the other, and a relay between it and the VM keeps the guest to the same rules.

mod addresses;
mod again;
mod choice;
mod conntrack;
mod departure;
mod doze;
mod error;
mod firewall;
mod forwarding;
#[cfg(test)]
pub(crate) mod isolation;
mod lease;
mod leftover;
mod legacy;
mod link;
mod look;
mod lookup;
mod made;
mod name_service;
mod namespace;
mod nat;
mod nft;
pub mod passt;
mod patience;
mod probe;
mod proxy;
mod publish;
mod reap;
mod record;
mod rules;
pub mod survey;
mod table;
mod taken;
mod tap;
mod thread;
mod turn;
mod watch;

pub use again::is_free;
pub use departure::take_down;
pub use error::{Error, Holder};
pub use link::set_up;
pub use name_service::name_servers;
pub use proxy::{Proxy, serve};
pub use reap::reap_stale;
pub use tap::Tap;
pub use watch::Watch;

use crate::config::{Interface, MacAddress, Metadata, Mtu, Net, NetBackend, PortMapping};
use crate::state::runtime::RuntimeDirectory;
use kvmlet_sys::environment;
use kvmlet_sys::frames::FrameSocket;
use kvmlet_sys::tap::TapQueue;
use made::Made;
use passt::Passt;
use std::sync::Arc;

/// The host's side of one interface of a guest. Dropping it takes down what it has set up.
pub struct Network {
    carrier: Carrier,
    interface: Interface,
    warnings: Vec<String>,
    made: Option<Made>,
    /// The ports of one that another process holds.
    lent: Vec<PortMapping>,
    metadata: Option<Metadata>,
}

/// What the guest's frames go through.
enum Carrier {
    Tap(Tap),
    Passt(Passt),
}

impl Carrier {
    fn tap(&self) -> Option<&Tap> {
        match self {
            Self::Tap(tap) => Some(tap),
            Self::Passt(_) => None,
        }
    }
}

impl Network {
    /// Opens the tap that the configuration names, or makes one with all that goes with it. `runtime` is where it is
    /// noted. What is left over from VMs that were killed is cleared. Who may make no tap has passt, unless the
    /// configuration says otherwise.
    ///
    /// # Errors
    /// When it cannot be made, or not without rules for what passes; each error knows a [way out](Error::help), mostly.
    /// That the guest reaches only the host is not an error but a [warning](Self::warnings). Clients on this host are
    /// not [served](Self::proxy) yet: they wait.
    pub fn set_up(config: &Net, runtime: Option<&RuntimeDirectory>) -> Result<Self, Error> {
        let mut network = Self::carried(config, runtime)?;
        network.metadata.clone_from(&config.metadata);
        Ok(network)
    }

    fn carried(config: &Net, runtime: Option<&RuntimeDirectory>) -> Result<Self, Error> {
        let make = || Self::make(config, runtime.ok_or(Error::NoNotes)?);
        if !config.given.is_empty() {
            return Ok(Self::given(
                Tap::given(&config.given)?,
                config.mac,
                config.mtu,
            ));
        }
        match (&config.tap, config.backend) {
            (Some(name), _) => Self::open(name, config),
            (None, Some(NetBackend::Passt)) => passt::set_up(config),
            (None, backend) => match make() {
                Err(Error::Tun { .. } | Error::Capability { .. })
                    if backend.is_none() && !config.vhost && passt::find().is_some() =>
                {
                    passt::set_up(config)
                }
                made => made.map_err(survey::with_all_that_is_missing),
            },
        }
    }

    fn open(name: &str, config: &Net) -> Result<Self, Error> {
        // CAP_NET_ADMIN would open every user's.
        let open = || Tap::open(name, config.queues.get().into());
        let tap = patience::in_turn(|| {
            let opened = environment::as_caller(open);
            opened.map_err(|source| Error::Tap {
                name: name.into(),
                source,
            })?
        })?;
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
        let mtu = u64::try_from(mtu)
            .ok()
            .and_then(|mtu| Mtu::try_from(mtu).ok());
        let mut network = Self::given(tap, config.mac, mtu);
        network.warnings = warnings;
        Ok(network)
    }

    /// One that somebody else looks after.
    fn given(tap: Tap, mac: Option<MacAddress>, mtu: Option<Mtu>) -> Self {
        Self {
            carrier: Carrier::Tap(tap),
            interface: Interface {
                mac: mac.unwrap_or_else(random_mac),
                mtu: mtu.map(Mtu::get),
                guest: None,
            },
            warnings: Vec::new(),
            made: None,
            lent: Vec::new(),
            metadata: None,
        }
    }

    /// Has what [`proxy`](Self::proxy), [`relay`](Self::relay) and [`watch`](Self::watch) are for done by threads of this
    /// process.
    ///
    /// # Errors
    /// When the host gives no threads or events.
    pub fn serve(&mut self) -> Result<(), Error> {
        let proxy = self.proxy()?.map(thread::of_proxy).transpose()?;
        let watch = self.watch().map(thread::of_watch).transpose()?;
        if let Some(made) = &mut self.made {
            made.threads.extend(proxy.into_iter().chain(watch));
        }
        if let (Some((relay, process)), Carrier::Passt(passt)) = (self.relay()?, &mut self.carrier)
        {
            passt.threads = Some((thread::of_relay(relay)?, process));
        }
        Ok(())
    }

    /// What serves clients of published ports that no rule leads to the guest, and the guest's questions about names.
    /// There is one of a network that kvmlet has made. It may be served by another process.
    ///
    /// # Errors
    /// When the host gives no events.
    pub fn proxy(&mut self) -> Result<Option<Proxy>, Error> {
        let offer = self.made.as_mut().and_then(|made| made.offer.take());
        let proxy = offer.map(Proxy::new).transpose();
        proxy.map_err(|source| Error::Proxy { source })
    }

    /// What looks after the rules of a network that kvmlet has made, once.
    pub fn watch(&mut self) -> Option<Watch> {
        let guarded = self.made.as_mut()?.guarded.take();
        guarded.map(Watch::new)
    }

    /// Starts passt, if it is to carry the guest's frames, and tells what carries them to it, once. That may be served by
    /// another process.
    ///
    /// # Errors
    /// When passt does not start.
    pub fn relay(&mut self) -> Result<Option<(passt::Relay, passt::Process)>, Error> {
        match &mut self.carrier {
            Carrier::Tap(_) => Ok(None),
            Carrier::Passt(passt) => Ok(passt.relay()?),
        }
    }

    /// The published ports, with those of the host that were chosen for them.
    pub fn published(&self) -> &[PortMapping] {
        match &self.carrier {
            Carrier::Tap(_) => self
                .made
                .as_ref()
                .map_or(&self.lent, |made| &made.published),
            Carrier::Passt(passt) => &passt.published,
        }
    }

    /// What the guest's side is like.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The tap's queues, as many as the configuration asks for. They may be served by another process. There are none where
    /// there is a [socket](Self::socket) instead.
    pub fn queues(&self) -> &[Arc<TapQueue>] {
        self.carrier.tap().map_or(&[], Tap::queues)
    }

    /// What the guest's frames go through on their way to passt. It may be served by another process.
    pub fn socket(&self) -> Option<&Arc<FrameSocket>> {
        match &self.carrier {
            Carrier::Tap(_) => None,
            Carrier::Passt(passt) => Some(&passt.port),
        }
    }

    /// Who answers the guest at one address. It may be served by another process.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The tap's name, if there is one.
    pub fn tap(&self) -> Option<&str> {
        self.carrier.tap().map(Tap::name)
    }

    /// Leaves all that is set up to the process that this one was forked from.
    pub fn abandon(mut self) {
        self.made = None;
    }

    /// What will not work, in words for the user.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn random_mac() -> MacAddress {
    let mut end = [0; 5];
    // An address that is not so random serves, too.
    let _ = rustix::rand::getrandom(&mut end, rustix::rand::GetRandomFlags::empty());
    MacAddress::local(end)
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod look_tests;
#[cfg(test)]
mod name_tests;
#[cfg(test)]
mod neighbour_tests;
#[cfg(test)]
mod port_tests;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
#[cfg(test)]
mod traffic_tests;
#[cfg(test)]
mod watch_tests;
