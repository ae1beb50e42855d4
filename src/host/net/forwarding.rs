//! Packets are forwarded when the interface that they come in on says so. The host's setting for all is left as it
//! is: kvmlet *borrows* the interfaces that the host's default routes lead to. What comes in there goes to guests or
//! nowhere, as before; and in the end it is as it was.
//!
//! Others may switch forwarding on meanwhile (docker, libvirt and VPNs do it for all interfaces). From then on it is
//! theirs: their packets pass, and nothing is switched off.

use super::lease::{Leases, namespace};
use super::link;
use super::nft::{Kind, Socket, find};
use super::rules::BORROWED;
use super::table::{self, TABLE_PREFIX, Table};
use crate::host::directory::Directory;
use std::io;

/// A name has at most 15 bytes.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// The setting for all, as an interface of that name.
const ALL: &str = "all";

/// What this owner has borrowed here.
pub(super) struct Forwarding<'a>(&'a Directory);

/// An interface that was borrowed.
struct Loan {
    interface: String,
    /// Whether all others forwarded then.
    all: bool,
}

impl<'a> Forwarding<'a> {
    pub fn of(leases: &'a Leases) -> Self {
        Self(leases.directory())
    }

    fn note() -> String {
        format!("forwarding-{}", namespace())
    }

    fn loans(&self) -> Vec<Loan> {
        let note = self.0.read(&Self::note(), MAX_NOTE_BYTES);
        let note = note.ok().flatten().unwrap_or_default();
        let loan = |line: &str| {
            let (interface, all) = line.split_once(' ').unwrap_or((line, ""));
            Loan {
                interface: interface.into(),
                all: all == ALL,
            }
        };
        String::from_utf8_lossy(&note).lines().map(loan).collect()
    }

    fn write(&self, loans: &[Loan]) -> io::Result<()> {
        let lines = loans.iter().map(|loan| match loan.all {
            true => format!("{} {ALL}\n", loan.interface),
            false => format!("{}\n", loan.interface),
        });
        let text: String = lines.collect();
        self.0.write(&Self::note(), text.as_bytes())
    }

    /// Has packets forwarded between a guest's interface and those that the default routes lead to.
    pub fn switch_on(&self, socket: &mut Socket, table: &Table, tap: &str) -> io::Result<()> {
        let mut loans = self.loans();
        link::set_forwarding(tap, true)?;
        let elsewhere = lent_to_others(socket, table);
        for route in link::routes()?.iter().filter(|route| route.is_default()) {
            let uplink = &route.interface;
            let known = loans.iter().any(|loan| loan.interface == *uplink);
            let forwards = link::forwards(uplink);
            // What another owner has borrowed is borrowed here, too: the last of them gives it back.
            if uplink == tap || forwards && (known || !elsewhere.contains(uplink)) {
                continue;
            }
            if !known {
                loans.push(Loan {
                    interface: uplink.clone(),
                    all: link::forwards(ALL),
                });
                // Noted first: what is noted too much is switched off once too often, to what it was.
                self.write(&loans)?;
                socket.change(|batch| table.borrow(batch, uplink))?;
            }
            if !forwards {
                link::set_forwarding(uplink, true)?;
            }
        }
        self.note_again(socket, table)
    }

    /// Tells the table of what is borrowed.
    pub fn note_again(&self, socket: &mut Socket, table: &Table) -> io::Result<()> {
        let loans = self.loans();
        if loans.is_empty() {
            return Ok(());
        }
        socket.change(|batch| {
            for loan in &loans {
                table.borrow(batch, &loan.interface);
            }
        })
    }

    /// Leaves to others what they have switched on since.
    pub fn give_up(&self, socket: &mut Socket, table: &Table) {
        let (kept, theirs): (Vec<_>, Vec<_>) =
            self.loans().into_iter().partition(Loan::is_still_ours);
        if theirs.is_empty() {
            return;
        }
        let told = socket.change(|batch| {
            for loan in &theirs {
                table.give_back(batch, &loan.interface);
            }
        });
        if let Err(error) = told.and_then(|()| self.write(&kept)) {
            log::warn!("what this host forwards may still be dropped: {error}");
        }
    }

    /// Switches off what is still kvmlet's. The table is gone.
    pub fn switch_off(&self, socket: &mut Socket, table: &Table) {
        let loans = self.loans();
        if loans.is_empty() {
            return;
        }
        let elsewhere = lent_to_others(socket, table);
        let ours = |loan: &&Loan| loan.is_still_ours() && !elsewhere.contains(&loan.interface);
        for loan in loans.iter().filter(ours) {
            // An interface that is gone forwards nothing.
            let _ = link::set_forwarding(&loan.interface, false);
        }
        let note = Self::note();
        if let Err(error) = self.0.remove(&note) {
            log::warn!("cannot remove {}/{note}: {error}", self.0.path().display());
        }
    }
}

impl Loan {
    fn is_still_ours(&self) -> bool {
        self.all || !link::forwards(ALL)
    }
}

/// What other owners have borrowed in this network namespace.
fn lent_to_others(socket: &mut Socket, table: &Table) -> Vec<String> {
    let mut others = Vec::new();
    let listed = socket.list(Kind::GetTable, super::nft::IPV4, &[], |found| {
        let name = found.text(table::NFTA_TABLE).unwrap_or_default();
        if name.starts_with(TABLE_PREFIX) && name != table.name {
            others.push(Table { name: name.into() });
        }
    });
    let mut lent = Vec::new();
    for other in &others {
        let which = [other.attribute(), super::nft::text(2, BORROWED)];
        let _ = socket.list(Kind::GetElement, super::nft::IPV4, &which, |found| {
            let elements = found.attribute(table::NFTA_SET_ELEM_LIST_ELEMENTS);
            for (_, element) in elements.into_iter().flat_map(super::nft::each) {
                // The value of its key.
                let key = find(element, 1).and_then(|key| find(key, 1));
                let name = key.unwrap_or_default().split(|byte| *byte == 0).next();
                lent.push(String::from_utf8_lossy(name.unwrap_or_default()).into_owned());
            }
        });
    }
    if let Err(error) = listed {
        log::debug!("the tables of other owners are unknown: {error}");
    }
    lent
}
