//! Threads of this process that look after a network, where no process of its own does: for those who embed kvmlet.

use super::Error;
use super::passt::{self, Relay};
use super::proxy::{self, Proxy};
use super::watch::Watch;
use crate::walls::rights;
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::Serving;
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::AsFd;

/// Serves strangers.
pub(super) fn of_proxy(proxy: Proxy) -> Result<Serving, Error> {
    start("net-proxy", move |stop| {
        if let Err(error) = rights::serve_strangers() {
            return log::warn!(
                "published ports are closed: their clients cannot be kept apart: {error}"
            );
        }
        if let Err(error) = proxy::serve(&mut [proxy], stop.as_fd()) {
            log::warn!("published ports are closed: {error}");
        }
    })
}

/// Carries frames to passt.
pub(super) fn of_relay(relay: Relay) -> Result<Serving, Error> {
    start("net-relay", move |stop| {
        if let Err(error) = rights::carry_frames() {
            return log::warn!(
                "an interface has no network: its frames cannot be kept apart: {error}"
            );
        }
        if let Err(error) = passt::carry(vec![relay], stop.as_fd()) {
            log::warn!("an interface has no network any more: {error}");
        }
    })
}

/// Looks after rules.
pub(super) fn of_watch(mut watch: Watch) -> Result<Serving, Error> {
    start("net-watch", move |stop| {
        if let Err(error) = rights::keep_those_of_networks() {
            log::warn!("a thread keeps rights that it does not need: {error}");
        }
        loop {
            let [tables, settings] = watch.fds();
            let slots = [stop.as_fd(), tables, settings].map(Slot::readable);
            if let Ok([true, _, _]) = wait::any(slots, Until::Deadline(watch.due())) {
                return;
            }
            watch.turn();
        }
    })
}

fn start(name: &str, serve: impl FnOnce(Event) + Send + 'static) -> Result<Serving, Error> {
    Serving::start(name, serve).map_err(|source| Error::Proxy { source })
}
