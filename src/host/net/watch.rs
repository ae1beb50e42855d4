//! Looks after a guest's rules while it runs: who reloads a firewall often takes away all tables there are, and who
//! starts one may drop what they let pass.

use super::firewall::Firewall;
use super::lease::{self, Record};
use super::nat::Ways;
use super::nft::{Change, IPV4, IPV6, Kind, News, Received};
use super::rules::PRIVATE;
use super::table::{NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_TABLE, TABLE_PREFIX};
use super::{Error, legacy, link};
use crate::rights;
use crate::runtime::RuntimeDirectory;
use kvmlet_sys::event::Event;
use kvmlet_sys::interrupt;
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::AsFd;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// A guest whose rules are looked after.
pub(super) struct Guarded {
    pub runtime: RuntimeDirectory,
    pub record: Record,
    pub ways: Ways,
    pub news: News,
    /// The way to the interface: when it is needed, no descriptor may be left.
    pub link: link::Socket,
}

/// How long until rules that could not be put back are tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a firewall has for the rest of its rules once the first have come.
const SETTLED: Duration = Duration::from_millis(300);
/// How often it is told that rules are back, at most.
const TOLD: Duration = Duration::from_secs(10);

/// The thread that does; dropping it ends it.
pub(super) struct Watch {
    stop: Event,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(guarded: Guarded) -> io::Result<Self> {
        let stop = Event::new()?;
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
        self.stop.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What news ask for.
#[derive(Clone, Copy, Default)]
struct Concerns {
    /// Something of the table is gone.
    rules: bool,
    /// What it is made with is gone: to look at rules does not show it.
    contents: bool,
    forwarding: bool,
    /// A firewall may have come, or gone.
    firewall: bool,
}

const EVERYTHING: Concerns = Concerns {
    rules: true,
    contents: false,
    forwarding: true,
    firewall: true,
};

impl Guarded {
    fn run(mut self, stop: &Event) {
        if let Err(error) = rights::keep_those_of_networks() {
            log::warn!("a thread keeps rights that it does not need: {error}");
        }
        // Whoever ends this thread waits for it, and it may wait for a lock.
        if let Ok(stop) = stop.try_clone() {
            interrupt::by_event(stop);
        }
        // What happened before anybody looked.
        let mut concerns = EVERYTHING;
        let mut told = None;
        let mut look_at = None;
        let mut warned = self.ways.firewall().cloned();
        // The start has looked just now.
        let mut next_look = legacy::SOON;
        loop {
            let repaired = self.look_after(concerns);
            match &repaired {
                Ok(true) if told.is_none_or(|at: Instant| at.elapsed() > TOLD) => {
                    told = Some(Instant::now());
                    log::warn!(
                        "the rules for guests' packets were gone (was a firewall reloaded?) and are back"
                    );
                }
                Ok(_) => {}
                Err(error) if told.is_none_or(|at| at.elapsed() > TOLD) => {
                    told = Some(Instant::now());
                    let tap = &self.record.tap;
                    log::error!(
                        "the interface {tap} is stopped until the rules for its packets are back: {error}"
                    );
                }
                Err(_) => {}
            }
            if concerns.firewall {
                look_at.get_or_insert_with(|| Instant::now() + SETTLED);
            }
            let again = repaired.is_err().then_some(AGAIN);
            let settled = look_at.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = [again, settled]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(next_look);
            let [tables, settings] = self.news.fds();
            let slots = [stop.as_fd(), tables, settings].map(Slot::readable);
            let come = wait::any(slots, Until::after(wait));
            let quiet = come.as_ref().is_ok_and(|come| !come.contains(&true));
            if let Ok([true, _, _]) = come {
                return;
            }
            let known = self.ways.firewall() == Some(&Firewall::Legacy);
            let due = look_at.is_some_and(|at| at <= Instant::now());
            if quiet || due {
                let look = legacy::look();
                next_look = look.next;
                if due || look.forwards_nothing != known {
                    look_at = None;
                    self.heed_firewalls(&mut warned);
                }
            }
            concerns = self.concerns();
            concerns.rules |= repaired.is_err();
        }
    }

    /// Has clients led to where they are not dropped, and tells of a firewall that has come.
    fn heed_firewalls(&mut self, warned: &mut Option<Firewall>) {
        let before = self.ways.firewall().is_some();
        if let Err(error) = self.ways.heed_firewalls(&self.record) {
            log::warn!("published ports may be dropped by a firewall: {error}");
        }
        let tap = &self.record.tap;
        match self.ways.firewall() {
            Some(firewall) if warned.as_ref() != Some(firewall) => {
                log::warn!("{}", firewall.warning(tap));
                *warned = Some(firewall.clone());
            }
            None if before => {
                log::info!("no firewall keeps the packets of {tap} from passing any more")
            }
            _ => {}
        }
    }

    fn concerns(&self) -> Concerns {
        let mut concerns = Concerns::default();
        let table = self.ways.table();
        self.news.read(|change| match change {
            Change::Table(change) => {
                let ours =
                    [IPV4, IPV6].contains(&change.family) && change.text(NFTA_TABLE) == Some(table);
                let matters = match change.kind {
                    Kind::NewChain | Kind::NewRule | Kind::NewSet | Kind::NewElement => false,
                    // Elements go with other guests.
                    Kind::DelElement => {
                        concerns.contents |= ours && change.text(2) == Some(PRIVATE);
                        self.is_about_guest(&change)
                    }
                    _ => true,
                };
                concerns.rules |= ours && matters;
                let of_others = !change
                    .text(NFTA_TABLE)
                    .is_some_and(|table| table.starts_with(TABLE_PREFIX));
                concerns.firewall |= of_others && !change.kind.is_about_contents();
            }
            // Who starts one mostly switches on forwarding.
            Change::Setting => {
                concerns.forwarding = true;
                concerns.firewall = true;
            }
            Change::Lost => {
                concerns = Concerns {
                    contents: true,
                    ..EVERYTHING
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
        names(&self.record.index.to_ne_bytes()) || names(&self.record.guest.octets())
    }

    /// Puts back what is gone; true if there was something.
    fn look_after(&mut self, concerns: Concerns) -> Result<bool, Error> {
        let mut repaired = false;
        if concerns.rules || concerns.contents {
            // Nobody is waited for to look, and mostly others have put it back already.
            let whole = !concerns.contents
                && self.ways.is_whole().unwrap_or(false)
                && self.ways.extend(&self.record).is_ok();
            if !whole {
                self.rebuild(concerns.contents)?;
                repaired = true;
            }
        }
        if concerns.forwarding
            && let Ok(leases) = lease::lock(&self.runtime)
        {
            self.ways.yield_forwarding(&leases);
        }
        Ok(repaired)
    }

    /// Without its rules a guest would reach this host: its interface is down until they are back.
    fn rebuild(&mut self, contents: bool) -> Result<(), Error> {
        let tap = &self.record.tap;
        let failed = |source| Error::Link {
            name: tap.clone(),
            what: "change the state",
            source,
        };
        let stopped = self.link.set_up(tap, false).map_err(failed);
        let leases = lease::lock(&self.runtime)?;
        // While the lock was waited for, another guest's supervisor may have done it.
        let whole = self.ways.is_whole().unwrap_or(false) && self.ways.extend(&self.record).is_ok();
        if contents || !whole {
            let live = lease::live_here(&leases)?;
            self.ways.rebuild(&leases, &live)?;
        }
        stopped?;
        self.link.set_up(tap, true).map_err(failed)
    }
}
