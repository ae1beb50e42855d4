//! Packets are forwarded when the interface that they come in on says so. The host's setting for all is left as it
//! is: kvmlet *borrows* the interfaces that the host's default routes lead to. What comes in there goes to guests or
//! nowhere, as before; and in the end it is as it was.
//!
//! Others may switch forwarding on meanwhile (docker, libvirt and VPNs do it for all interfaces). From then on it is
//! theirs: their packets pass, and nothing is switched off.

use super::lease::Leases;
use super::link;
use super::namespace::Namespace;
use super::nft::{Kind, Socket, find};
use super::rules::BORROWED;
use super::table::{self, Table};
use crate::config::is_interface_name;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::environment;
use std::io;

/// A name has at most 15 bytes.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// The setting for all, as an interface of that name.
const ALL: &str = "all";
/// That for interfaces to come, likewise.
const DEFAULT: &str = "default";

/// What this owner has borrowed here.
pub(super) struct Forwarding<'a> {
    directory: &'a Directory,
    /// Whether whoever could write the note could switch forwarding as well. Not so where the file of kvmlet has
    /// CAP_NET_ADMIN: then the kernel's own set decides, which takes that capability to change.
    note_is_trusted: bool,
    /// What this process knows by itself: it is believed whatever has become of note and set meanwhile.
    remembered: &'a [Loan],
}

/// An interface that was borrowed.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    interface: String,
    /// Whether all others forwarded then.
    all: bool,
}

impl<'a> Forwarding<'a> {
    pub fn of(leases: &'a Leases, remembered: &'a [Loan]) -> Self {
        Self {
            directory: leases.directory(),
            note_is_trusted: !environment::is_privileged_by_file(),
            remembered,
        }
    }

    fn note() -> String {
        note(Namespace::here().inode)
    }

    /// What is noted, as far as it is believed, and what is remembered.
    pub fn loans(&self, socket: &mut Socket, table: &Table) -> Vec<Loan> {
        let mut loans = self.noted();
        if !self.note_is_trusted && !loans.is_empty() {
            let known = borrowed_by(socket, table);
            loans.retain(|loan| known.contains(&loan.interface));
        }
        for loan in self.remembered.iter().filter(|loan| loan.is_still_ours()) {
            if !loans.iter().any(|known| known.interface == loan.interface) {
                loans.push(loan.clone());
            }
        }
        loans
    }

    fn noted(&self) -> Vec<Loan> {
        let note = self.directory.read(&Self::note(), MAX_NOTE_BYTES);
        let note = note.ok().flatten().unwrap_or_default();
        let loan = |line: &str| {
            let (interface, all) = line.split_once(' ').unwrap_or((line, ""));
            Loan {
                interface: interface.into(),
                all: all == ALL,
            }
        };
        let text = String::from_utf8_lossy(&note);
        let is_one = |loan: &Loan| {
            is_interface_name(&loan.interface) && ![ALL, DEFAULT].contains(&&*loan.interface)
        };
        text.lines().map(loan).filter(is_one).collect()
    }

    fn write(&self, loans: &[Loan]) -> io::Result<()> {
        let lines = loans.iter().map(|loan| match loan.all {
            true => format!("{} {ALL}\n", loan.interface),
            false => format!("{}\n", loan.interface),
        });
        let text: String = lines.collect();
        self.directory.write(&Self::note(), text.as_bytes())
    }

    /// Has packets forwarded between a guest's interface and those that the default routes lead to. What is borrowed
    /// for that comes to the loans.
    pub fn switch_on(
        &self,
        loans: &mut Vec<Loan>,
        socket: &mut Socket,
        table: &Table,
        tap: &str,
    ) -> io::Result<()> {
        // The table may be new.
        lend(loans, socket, table)?;
        // Where it may not be set, it may be on already.
        if !link::forwards(tap) {
            link::set_forwarding(tap, true)?;
        }
        let elsewhere = lent_to_others(socket, table);
        for route in link::default_routes()? {
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
                let lent = self
                    .write(loans)
                    .and_then(|()| lend(&loans[loans.len() - 1..], socket, table));
                if lent.is_err() {
                    loans.pop();
                }
                lent?;
            }
            if !forwards {
                link::set_forwarding(uplink, true)?;
            }
        }
        Ok(())
    }

    /// Tells the table of what is borrowed.
    pub fn note_again(&self, socket: &mut Socket, table: &Table) -> io::Result<()> {
        lend(&self.loans(socket, table), socket, table)
    }

    /// Leaves to others what they have switched on since.
    pub fn give_up(&self, socket: &mut Socket, table: &Table) {
        let loans = self.loans(socket, table);
        let (kept, theirs): (Vec<_>, Vec<_>) = loans.into_iter().partition(Loan::is_still_ours);
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
    pub fn switch_off(&self, loans: &[Loan], socket: &mut Socket, table: &Table) {
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
        if let Err(error) = self.directory.remove(&note) {
            log::warn!(
                "cannot remove {}/{note}: {error}",
                self.directory.path().display()
            );
        }
    }
}

/// Tells the table of what is borrowed.
fn lend(loans: &[Loan], socket: &mut Socket, table: &Table) -> io::Result<()> {
    socket.change(|batch| {
        for loan in loans {
            table.borrow(batch, &loan.interface);
        }
    })
}

fn note(namespace: u64) -> String {
    format!("forwarding-{namespace}")
}

/// Forgets what was borrowed in a namespace that is gone.
pub(super) fn forget(leases: &Leases, namespace: u64) {
    let _ = leases.directory().remove(&note(namespace));
}

impl Loan {
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Have others not switched on forwarding since?
    pub fn is_still_ours(&self) -> bool {
        self.all || !link::forwards(ALL)
    }
}

/// What other owners have borrowed in this network namespace.
fn lent_to_others(socket: &mut Socket, table: &Table) -> Vec<String> {
    let others = table.others(socket);
    others
        .iter()
        .flat_map(|other| borrowed_by(socket, other))
        .collect()
}

/// What the kernel knows to be borrowed by the owner of a table.
fn borrowed_by(socket: &mut Socket, table: &Table) -> Vec<String> {
    let mut borrowed = Vec::new();
    let which = [table.attribute(), super::nft::text(2, BORROWED)];
    let _ = socket.list(Kind::GetElement, super::nft::IPV4, &which, |found| {
        let elements = found.attribute(table::NFTA_SET_ELEM_LIST_ELEMENTS);
        for (_, element) in elements.into_iter().flat_map(super::nft::each) {
            // The value of its key.
            let key = find(element, 1).and_then(|key| find(key, 1));
            let name = key.unwrap_or_default().split(|byte| *byte == 0).next();
            borrowed.push(String::from_utf8_lossy(name.unwrap_or_default()).into_owned());
        }
    });
    borrowed
}

#[cfg(test)]
mod tests {
    use super::super::isolation::isolated;
    use super::super::tests::run;
    use super::*;
    use crate::state::runtime::RuntimeDirectory;

    fn interfaces(loans: &[Loan]) -> Vec<&str> {
        loans.iter().map(|loan| &*loan.interface).collect()
    }

    #[test]
    fn a_forged_note_switches_nothing_off() {
        isolated(
            "net::forwarding::tests::a_forged_note_switches_nothing_off",
            || {
                for name in ["uplink", "others"] {
                    run("ip", &["tuntap", "add", name, "mode", "tap"]);
                    link::set_forwarding(name, true).unwrap();
                }
                let runtime = tempfile::tempdir().unwrap();
                let runtime = RuntimeDirectory::at(runtime.path()).unwrap();
                let leases = super::super::lease::lock(&runtime).unwrap();
                let forged = b"uplink\nothers\nall\ndefault\n../../../x\n\n";
                let note = Forwarding::note();
                leases.directory().write(&note, forged).unwrap();
                let mut socket = Socket::open().unwrap();
                let table = Table::of(leases.directory()).unwrap();
                socket
                    .change(|batch| {
                        table.create(batch);
                        table.borrow(batch, "uplink");
                    })
                    .unwrap();
                // One's own note is believed as far as it names interfaces; with rights by the file, the kernel is.
                for (note_is_trusted, believed) in
                    [(true, &["uplink", "others"][..]), (false, &["uplink"])]
                {
                    let directory = leases.directory();
                    let forwarding = Forwarding {
                        directory,
                        note_is_trusted,
                        remembered: &[],
                    };
                    let loans = forwarding.loans(&mut socket, &table);
                    assert_eq!(interfaces(&loans), believed);
                    if !note_is_trusted {
                        forwarding.note_again(&mut socket, &table).unwrap();
                        assert_eq!(borrowed_by(&mut socket, &table), ["uplink"]);
                        socket.change(|batch| table.delete(batch)).unwrap();
                        forwarding.switch_off(&loans, &mut socket, &table);
                    }
                }
                assert!(!link::forwards("uplink") && link::forwards("others"));
            },
        );
    }

    #[test]
    fn what_this_process_has_borrowed_it_gives_back_whatever_others_take_away() {
        isolated(
            "net::forwarding::tests::what_this_process_has_borrowed_it_gives_back_whatever_others_take_away",
            || {
                run("ip", &["tuntap", "add", "uplink", "mode", "tap"]);
                link::set_forwarding("uplink", true).unwrap();
                let runtime = tempfile::tempdir().unwrap();
                let runtime = RuntimeDirectory::at(runtime.path()).unwrap();
                let leases = super::super::lease::lock(&runtime).unwrap();
                let remembered = [Loan {
                    interface: "uplink".into(),
                    all: false,
                }];
                // As after `nft flush ruleset`, and with a note that its owner has removed.
                let forwarding = Forwarding {
                    directory: leases.directory(),
                    note_is_trusted: false,
                    remembered: &remembered,
                };
                let mut socket = Socket::open().unwrap();
                let table = Table::of(leases.directory()).unwrap();
                socket.change(|batch| table.create(batch)).unwrap();
                forwarding.note_again(&mut socket, &table).unwrap();
                assert_eq!(borrowed_by(&mut socket, &table), ["uplink"]);
                let loans = forwarding.loans(&mut socket, &table);
                socket.change(|batch| table.delete(batch)).unwrap();
                forwarding.switch_off(&loans, &mut socket, &table);
                assert!(!link::forwards("uplink"));
                // What others have switched on since is theirs.
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
                assert!(forwarding.loans(&mut socket, &table).is_empty());
            },
        );
    }
}
