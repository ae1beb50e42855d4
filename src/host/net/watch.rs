//! Looks after a guest's rules while it runs: who reloads a firewall often takes away all tables there are, and who
//! starts one may drop what they let pass.

use super::firewall::Firewall;
use super::lease;
use super::nat::Ways;
use super::nft::{Change, IPV4, IPV6, Kind, News, Received};
use super::record::Record;
use super::rules::PRIVATE;
use super::table::{NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_TABLE, TABLE_PREFIX};
use super::{Error, legacy, link};
use crate::state::claims;
use crate::state::runtime::RuntimeDirectory;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A guest whose rules are looked after.
pub(super) struct Guarded {
    pub runtime: RuntimeDirectory,
    pub record: Record,
    pub ways: Ways,
    pub news: News,
    /// The way to the interface: when it is needed, no descriptor may be left.
    pub link: link::Socket,
    /// It is down until the rules are back, whoever has put them back.
    pub stopped: bool,
}

/// How long until rules that could not be put back are tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same where somebody else has the lock just now: it is held for milliseconds.
const SOON: Duration = Duration::from_millis(10);
/// How long a firewall has for the rest of its rules once the first have come.
const SETTLED: Duration = Duration::from_millis(300);
/// How often it is told that rules are back, at most.
const TOLD: Duration = Duration::from_secs(10);

/// Looks after a guest's rules. It takes its turns in the loop of whoever has it: when one of its [descriptors](Self::fds)
/// can be read, and when something is [due](Self::due). Nothing in a turn waits: a lock that others have is tried again.
///
/// It ends before its network does, lest it put back what is taken down.
pub struct Watch {
    guarded: Guarded,
    /// What could not be looked after yet.
    pending: Concerns,
    /// When that is tried again.
    again: Option<Instant>,
    /// Since when it could not.
    failing: Option<Instant>,
    told: Option<Instant>,
    /// When a firewall that is being started has all its rules.
    settled: Option<Instant>,
    /// When iptables are looked at, of whose changes nobody tells.
    look: Instant,
    warned: Option<Firewall>,
}

/// What news ask for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
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

impl Concerns {
    const NONE: Self = Self {
        rules: false,
        contents: false,
        forwarding: false,
        firewall: false,
    };

    fn and(self, other: Self) -> Self {
        Self {
            rules: self.rules || other.rules,
            contents: self.contents || other.contents,
            forwarding: self.forwarding || other.forwarding,
            firewall: self.firewall || other.firewall,
        }
    }
}

impl Watch {
    pub(super) fn new(guarded: Guarded) -> Self {
        let now = Instant::now();
        Self {
            warned: guarded.ways.firewall().cloned(),
            guarded,
            // What happened before anybody looked.
            pending: EVERYTHING,
            again: Some(now),
            failing: None,
            told: None,
            settled: None,
            // The start has looked just now.
            look: now + legacy::SOON,
        }
    }

    /// Readable when there is news.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        self.guarded.news.fds()
    }

    /// Those that the kernel may make wait who closes them.
    pub(super) fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        let [tables, _] = self.guarded.news.fds();
        [tables, self.guarded.ways.as_fd()]
    }

    /// When there is something to do without any.
    pub fn due(&self) -> Instant {
        let first = [self.again, self.settled].into_iter().flatten().min();
        first.map_or(self.look, |first| first.min(self.look))
    }

    /// Does what there is to do now.
    pub fn turn(&mut self) {
        self.look_at_firewalls();
        let news = self.guarded.concerns();
        self.pending = self.pending.and(news);
        if std::mem::take(&mut self.pending.firewall) {
            let settled = || Instant::now() + SETTLED;
            self.settled.get_or_insert_with(settled);
        }
        let waits = self.again.is_some_and(|at| at > Instant::now());
        if self.pending == Concerns::NONE || waits && news == Concerns::NONE {
            return;
        }
        match self.guarded.look_after(&mut self.pending) {
            Ok(repaired) => {
                let left = self.pending != Concerns::NONE;
                self.again = left.then(|| Instant::now() + SOON);
                self.failing = None;
                if repaired && self.may_tell() {
                    log::warn!(
                        "the rules for guests' packets were gone (was a firewall reloaded?) and are back"
                    );
                }
            }
            Err(error) => self.try_again(&error),
        }
    }

    fn try_again(&mut self, error: &Error) {
        let now = Instant::now();
        let since = *self.failing.get_or_insert(now);
        let is_busy = is_busy(error);
        self.again = Some(now + if is_busy { SOON } else { AGAIN });
        if (!is_busy || now - since >= AGAIN) && self.may_tell() {
            let tap = &self.guarded.record.tap;
            log::error!(
                "the interface {tap} is stopped until the rules for its packets are back: {error}"
            );
        }
    }

    fn may_tell(&mut self) -> bool {
        let may = self.told.is_none_or(|at| at.elapsed() > TOLD);
        if may {
            self.told = Some(Instant::now());
        }
        may
    }

    fn look_at_firewalls(&mut self) {
        let now = Instant::now();
        let settled = self.settled.is_some_and(|at| at <= now);
        if !settled && now < self.look {
            return;
        }
        let known = self.guarded.ways.firewall() == Some(&Firewall::Legacy);
        let look = legacy::look();
        self.look = now + look.next;
        if settled || look.forwards_nothing != known {
            self.settled = None;
            self.guarded.heed_firewalls(&mut self.warned);
        }
    }
}

impl Guarded {
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

    /// Puts back what is gone; true if there was something. What is looked after is no concern any more.
    fn look_after(&mut self, concerns: &mut Concerns) -> Result<bool, Error> {
        let mut repaired = false;
        if concerns.rules || concerns.contents {
            // Nobody is waited for to look, and mostly others have put it back already.
            let whole = !concerns.contents
                && self.ways.is_whole().unwrap_or(false)
                && self.ways.extend(&self.record).is_ok();
            match whole {
                true => self.start()?,
                false => {
                    self.rebuild(concerns.contents)?;
                    repaired = true;
                }
            }
            (concerns.rules, concerns.contents) = (false, false);
        }
        if concerns.forwarding {
            let leases = lease::lock_at_once(&self.runtime);
            concerns.forwarding = leases.as_ref().is_err_and(is_busy);
            if let Ok(leases) = leases {
                self.ways.yield_forwarding(&leases);
            }
        }
        Ok(repaired)
    }

    /// Without its rules a guest would reach this host: its interface is down until they are back.
    fn rebuild(&mut self, contents: bool) -> Result<(), Error> {
        let stopped = self.set_up(false);
        self.stopped |= stopped.is_ok();
        let mut leases = lease::lock_at_once(&self.runtime)?;
        // Another guest's supervisor may have done it meanwhile.
        let whole = self.ways.is_whole().unwrap_or(false) && self.ways.extend(&self.record).is_ok();
        if contents || !whole {
            let live = lease::live_here(&mut leases)?;
            self.ways.rebuild(&leases, &live)?;
        }
        stopped?;
        self.start()
    }

    /// Has the interface go on, if it was stopped.
    fn start(&mut self) -> Result<(), Error> {
        if self.stopped {
            self.set_up(true)?;
            self.stopped = false;
        }
        Ok(())
    }

    fn set_up(&self, up: bool) -> Result<(), Error> {
        let tap = &self.record.tap;
        self.link.set_up(tap, up).map_err(|source| Error::Link {
            name: tap.clone(),
            what: "change the state",
            source,
        })
    }
}

/// Has somebody else the lock of the leases just now?
fn is_busy(error: &Error) -> bool {
    matches!(error, Error::State(claims::Error::Busy { .. }))
}
