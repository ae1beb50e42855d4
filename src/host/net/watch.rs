//! Looks after a guest's rules while it runs: who reloads a firewall often takes away all tables there are.

use super::lease::{self, Record};
use super::nat::Ways;
use super::nft::{Change, IPV4, Kind, News, Received};
use super::table::{self, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_TABLE};
use super::{Error, link};
use crate::host::rights;
use crate::host::runtime::RuntimeDirectory;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};

/// A guest whose rules are looked after.
pub(super) struct Guarded {
    pub runtime: RuntimeDirectory,
    pub record: Record,
    pub ways: Ways,
    pub news: News,
}

/// The thread that does; dropping it ends it.
pub(super) struct Watch {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(guarded: Guarded) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopped = stop.try_clone()?;
        let thread = Builder::new()
            .name("net-watch".into())
            .spawn(move || guarded.run(&stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What news ask for.
#[derive(Clone, Copy, Default)]
struct Concerns {
    rules: bool,
    forwarding: bool,
}

impl Guarded {
    fn run(mut self, stop: &OwnedFd) {
        if let Err(error) = rights::keep_those_of_networks() {
            log::warn!("a thread keeps rights that it does not need: {error}");
        }
        // What happened before anybody looked.
        self.look_after(Concerns {
            rules: true,
            forwarding: true,
        });
        loop {
            let [tables, settings] = self.news.fds();
            let mut fds = [stop.as_fd(), tables, settings]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let _ = poll(&mut fds, None);
            if !fds[0].revents().is_empty() {
                return;
            }
            let concerns = self.concerns();
            self.look_after(concerns);
        }
    }

    fn concerns(&self) -> Concerns {
        let mut concerns = Concerns::default();
        let table = self.ways.table();
        self.news.read(|change| match change {
            Change::Table(change) => {
                let ours = change.family == IPV4 && change.text(NFTA_TABLE) == Some(table);
                let matters = match change.kind {
                    Kind::NewChain | Kind::NewRule | Kind::NewSet | Kind::NewElement => false,
                    // Elements go with other guests.
                    Kind::DelElement => self.is_about_guest(&change),
                    _ => true,
                };
                concerns.rules |= ours && matters;
            }
            Change::Setting => concerns.forwarding = true,
            Change::Lost => {
                concerns = Concerns {
                    rules: true,
                    forwarding: true,
                }
            }
        });
        concerns
    }

    /// Do elements name this guest's interface or address?
    fn is_about_guest(&self, elements: &Received<'_>) -> bool {
        let names = |key: &[u8]| {
            let elements = elements.attribute(NFTA_SET_ELEM_LIST_ELEMENTS);
            elements.is_some_and(|bytes| bytes.windows(key.len()).any(|window| window == key))
        };
        names(&table::name(&self.record.tap)) || names(&self.record.guest.octets())
    }

    fn look_after(&mut self, concerns: Concerns) {
        if concerns.rules {
            match self.repair() {
                Ok(false) => {}
                Ok(true) => log::warn!(
                    "the rules for guests' packets were gone (was a firewall reloaded?) and are back"
                ),
                Err(error) => self.stop_interface(&error),
            }
        }
        if concerns.forwarding
            && let Ok(leases) = lease::lock(&self.runtime)
        {
            self.ways.yield_forwarding(&leases);
        }
    }

    fn repair(&mut self) -> Result<bool, Error> {
        let leases = lease::lock(&self.runtime)?;
        let live = lease::live_here(&leases)?;
        self.ways.repair(&leases, &self.record, &live)
    }

    /// Without rules a guest would reach this host.
    fn stop_interface(&self, why: &Error) {
        let tap = &self.record.tap;
        log::error!("the interface {tap} is stopped, as the rules for its packets are gone: {why}");
        let stopped = link::Socket::open().and_then(|socket| socket.set_up(tap, false));
        if let Err(error) = stopped {
            log::error!("the interface {tap} cannot be stopped: {error}");
        }
    }
}
