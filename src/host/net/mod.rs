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
//! Rootless networking through passt, which would be another port of the device, is not
//! there.

mod addresses;
mod conntrack;
mod error;
mod firewall;
mod forwarding;
#[cfg(test)]
pub(crate) mod isolation;
mod lease;
mod legacy;
mod link;
mod made;
mod name_service;
mod namespace;
mod nat;
mod nft;
mod probe;
mod proxy;
mod publish;
mod reap;
mod rules;
pub mod survey;
mod table;
mod tap;
mod thread;
mod turn;
mod watch;

pub use error::{Error, Holder};
pub use link::set_up;
pub use name_service::name_servers;
pub use proxy::{Proxy, serve};
pub use reap::reap_stale;
pub use tap::Tap;
pub use watch::Watch;

use crate::config::{Interface, MacAddress, Net, PortMapping};
use crate::runtime::RuntimeDirectory;
use kvmlet_sys::environment;
use kvmlet_sys::tap::TapQueue;
use made::Made;
use std::sync::Arc;

/// The host's side of one interface of a guest. Dropping it takes down what it has set up.
pub struct Network {
    tap: Tap,
    interface: Interface,
    warnings: Vec<String>,
    made: Option<Made>,
}

impl Network {
    /// Opens the tap that the configuration names, or makes one with all that goes with it. `runtime` is where it is
    /// noted. What is left over from VMs that were killed is cleared.
    ///
    /// # Errors
    /// When it cannot be made, or not without rules for what passes; each error knows a [way out](Error::help), mostly.
    /// That the guest reaches only the host is not an error but a [warning](Self::warnings). Clients on this host are
    /// not [served](Self::proxy) yet: they wait.
    pub fn set_up(config: &Net, runtime: Option<&RuntimeDirectory>) -> Result<Self, Error> {
        match &config.tap {
            Some(name) => Self::open(name, config),
            None => Self::make(config, runtime.ok_or(Error::NoNotes)?)
                .map_err(survey::with_all_that_is_missing),
        }
    }

    fn open(name: &str, config: &Net) -> Result<Self, Error> {
        // CAP_NET_ADMIN would open every user's.
        let opened = environment::as_caller(|| Tap::open(name, config.queues.get().into()));
        let tap = opened.map_err(|source| Error::Tap {
            name: name.into(),
            source,
        })??;
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
        let interface = Interface {
            mac,
            mtu: u16::try_from(mtu).ok().filter(|mtu| *mtu >= 68),
            guest: None,
        };
        Ok(Self {
            tap,
            interface,
            warnings,
            made: None,
        })
    }

    /// Has what [`proxy`](Self::proxy) and [`watch`](Self::watch) are for done by threads of this process.
    ///
    /// # Errors
    /// When the host gives no threads or events.
    pub fn serve(&mut self) -> Result<(), Error> {
        let proxy = self.proxy()?.map(thread::of_proxy).transpose()?;
        let watch = self.watch().map(thread::of_watch).transpose()?;
        if let Some(made) = &mut self.made {
            made.threads.extend(proxy.into_iter().chain(watch));
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

    /// The published ports, with those of the host that were chosen for them.
    pub fn published(&self) -> &[PortMapping] {
        self.made.as_ref().map_or(&[], |made| &made.published)
    }

    /// What the guest's side is like.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The tap's queues, as many as the configuration asks for. They may be served by another process.
    pub fn queues(&self) -> &[Arc<TapQueue>] {
        self.tap.queues()
    }

    /// The tap's name.
    pub fn tap(&self) -> &str {
        self.tap.name()
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
