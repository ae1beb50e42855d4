//! The guests' way out and the published ports' way in: the [table](super::rules) of this runtime directory, in this
//! network namespace.

use super::forwarding::Forwarding;
use super::lease::{Leases, Record};
use super::nft::{Kind, Socket, as_number};
use super::rules;
use super::table::{self, Table};
use super::{Error, conntrack, firewall, link};
use std::io;

/// The ways of all guests that this owner has here.
pub(super) struct Ways {
    socket: Socket,
    table: Table,
    /// Whether rules lead clients to the published ports of the guest that this is for.
    publishes: bool,
}

impl Ways {
    /// # Errors
    /// When the kernel has no nf_tables.
    pub fn open(leases: &Leases) -> Result<Self, Error> {
        let socket = Socket::open().map_err(refused)?;
        let table = Table::of(leases.directory()).map_err(refused)?;
        Ok(Self {
            socket,
            table,
            publishes: true,
        })
    }

    /// Opens the ways of one guest beside `others`, who live; says what will not work all the same.
    ///
    /// # Errors
    /// When there are no rules: nothing is open then.
    pub fn add(
        &mut self,
        leases: &Leases,
        record: &Record,
        others: &[Record],
    ) -> Result<Vec<String>, Error> {
        // Who had the address before has left connections.
        if let Err(error) = conntrack::forget(&mut self.socket, record.guest) {
            log::info!(
                "old connections of {} are not forgotten: {error}",
                record.guest
            );
        }
        // What may be left of guests that nobody remembers would be in the way.
        let there = match others {
            [] => false,
            _ => self.extend(record).is_ok(),
        };
        if !there {
            let all = others.iter().chain([record]);
            self.build(all).map_err(refused)?;
        }
        let mut warnings = Vec::new();
        let forwarding = Forwarding::of(leases);
        let switched = forwarding.switch_on(&mut self.socket, &self.table, &record.tap);
        if let Err(error) = switched.and_then(|()| self.route()) {
            warnings.push(format!(
                "the guest reaches nothing but this host: packets cannot be forwarded ({error})"
            ));
        }
        if let Some(firewall) = firewall::in_the_way(&mut self.socket) {
            // What is let in here is still dropped there; without DNAT the proxy serves it.
            self.publishes = false;
            let _ = self
                .socket
                .change(|batch| self.table.unpublish(batch, record));
            warnings.push(firewall.warning(&record.tap));
        }
        Ok(warnings)
    }

    /// What the guest needs in the table, once more: what is there stays.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn extend(&mut self, record: &Record) -> io::Result<()> {
        let publishes = self.publishes;
        self.socket.change(|batch| {
            self.table.add(batch, record);
            if publishes {
                self.table.publish(batch, record);
            }
        })
    }

    /// The table, anew.
    fn build<'a>(&mut self, guests: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        self.socket.change(|batch| {
            self.table.delete(batch);
            self.table.create(batch);
            guests.for_each(|record| {
                self.table.add(batch, record);
                self.table.publish(batch, record);
            });
        })
    }

    /// Clients come in on whatever forwards.
    fn route(&mut self) -> io::Result<()> {
        let interfaces = link::forwarding_interfaces();
        self.socket.change(|batch| {
            for interface in &interfaces {
                self.table.route(batch, interface);
            }
        })
    }

    /// Closes the ways of guests. `last`: no other guest has any here.
    pub fn remove(&mut self, leases: &Leases, gone: &[Record], last: bool) {
        let forwarding = Forwarding::of(leases);
        // The table knows of them, and goes.
        let loans = match last {
            true => forwarding.loans(&mut self.socket, &self.table),
            false => Vec::new(),
        };
        let closed = self.socket.change(|batch| match last {
            true => self.table.delete(batch),
            false => gone
                .iter()
                .for_each(|record| self.table.remove(batch, record)),
        });
        match closed {
            Ok(()) => {}
            // Somebody has taken the table away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::warn!("cannot take down the network of a VM: {error}"),
        }
        if last {
            forwarding.switch_off(&loans, &mut self.socket, &self.table);
        }
    }

    /// Makes the table anew, with all guests that live.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn rebuild(&mut self, leases: &Leases, live: &[Record]) -> Result<(), Error> {
        self.build(live.iter()).map_err(refused)?;
        if firewall::in_the_way(&mut self.socket).is_some() {
            // As at the start: clients come by the proxies.
            self.publishes = false;
            let _ = self.socket.change(|batch| {
                live.iter()
                    .for_each(|record| self.table.unpublish(batch, record));
            });
        }
        Forwarding::of(leases)
            .note_again(&mut self.socket, &self.table)
            .and_then(|()| self.route())
            .map_err(refused)
    }

    /// Has the table its rules, and do they count?
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_whole(&mut self) -> io::Result<bool> {
        const NFTA_TABLE_FLAGS: u16 = 2;
        let name = self.table.name.clone();
        let (mut awake, mut count) = (0, 0);
        let only = [self.table.attribute()];
        for family in self.table.families() {
            self.socket.list(Kind::GetTable, family, &[], |table| {
                let flags = table.attribute(NFTA_TABLE_FLAGS).and_then(as_number);
                let ours = table.text(table::NFTA_TABLE) == Some(&name);
                awake += usize::from(ours && flags.unwrap_or(0) == 0);
            })?;
            self.socket.list(Kind::GetRule, family, &only, |rule| {
                count += usize::from(rule.text(table::NFTA_TABLE) == Some(&name));
            })?;
        }
        let whole = awake == self.table.families().count();
        Ok(whole && count == rules::count(self.table.ipv6))
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table.name
    }

    /// Others have switched forwarding on: kvmlet's is theirs now.
    pub fn yield_forwarding(&mut self, leases: &Leases) {
        Forwarding::of(leases).give_up(&mut self.socket, &self.table);
    }
}

/// Why there are no rules.
fn refused(source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::Capability {
            to: "filter a guest's packets",
        },
        _ => Error::Rules { source },
    }
}
