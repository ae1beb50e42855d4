//! Networks that outlive their VM's supervisor: the process that starts it holds them, so that they are there while the VM is
//! in a file, and are the next one's.

use crate::network_service::NetworkService;
use crate::networks::set_up_networks;
use crate::{Error, admission};
use kvmlet_host::net::{Network, take_down};
use kvmlet_spec::VmConfig;
use kvmlet_sys::wait::Slot;
use std::time::Instant;

/// A VM's networks, served by the process that holds them, which has one thread and hears nobody else.
pub struct HeldNetworks {
    networks: Vec<Network>,
    service: NetworkService,
}

impl HeldNetworks {
    /// Sets them up.
    ///
    /// # Errors
    /// What the host cannot give, and that an interface cannot be held.
    pub fn set_up(config: &VmConfig) -> Result<Self, Error> {
        let is_ours = |net: &kvmlet_spec::Net| net.is_made() && net.queues.get() == 1;
        if !config.nets.iter().all(is_ours) {
            return Err(Error::NotHeld);
        }
        let runtime = admission::runtime(config.best_effort)?;
        let mut networks = set_up_networks(config, runtime.as_ref())?;
        if networks.iter().any(|network| network.tap().is_none()) {
            return Err(Error::NotHeld);
        }
        let service = NetworkService::start(&mut networks)?;
        Ok(Self { networks, service })
    }

    /// What is waited for on their behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.service.slots()
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        self.service.due()
    }

    /// Does what there is to do now, and says what is missing from now on.
    #[must_use]
    pub fn turn(&mut self) -> Vec<String> {
        self.service.turn()
    }

    /// Has frames wait for a guest that is not there, or go to it again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn doze(&self, dozes: bool) -> Result<(), Error> {
        Ok(self.networks.iter().try_for_each(|it| it.doze(dozes))?)
    }

    /// That there are some for it.
    pub fn frames(&self) -> impl Iterator<Item = Slot<'_>> {
        self.networks.iter().flat_map(Network::frames)
    }

    /// What a VM takes of them, in a process that was forked from the one which holds them.
    pub fn lend(self) -> Vec<Network> {
        self.service.abandon();
        self.networks.into_iter().map(Network::lend).collect()
    }

    /// Their end.
    pub fn end(self) {
        take_down(self.networks, self.service.end());
    }
}
