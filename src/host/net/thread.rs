//! Threads of this process that look after a network, where no process of its own does: for those who embed kvmlet.

use super::Error;
use super::proxy::{self, Proxy};
use super::watch::Watch;
use crate::rights;
use kvmlet_sys::event::Event;
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::AsFd;
use std::thread::{Builder, JoinHandle};

/// One of them; dropping it ends it.
pub(super) struct Thread {
    stop: Event,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Serves strangers.
    pub fn of_proxy(proxy: Proxy) -> Result<Self, Error> {
        Self::start("net-proxy", move |stop| {
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

    /// Looks after rules.
    pub fn of_watch(mut watch: Watch) -> Result<Self, Error> {
        Self::start("net-watch", move |stop| {
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

    fn start(name: &str, body: impl FnOnce(&Event) + Send + 'static) -> Result<Self, Error> {
        let start = || {
            let stop = Event::new()?;
            let stopped = stop.try_clone()?;
            let thread = Builder::new().name(name.into());
            let handle = Some(thread.spawn(move || body(&stopped))?);
            Ok(Self { stop, handle })
        };
        start().map_err(|source| Error::Proxy { source })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}
