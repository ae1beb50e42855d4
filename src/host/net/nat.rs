//! The guests' way out and the published ports' way in: the [table](super::rules) of this runtime directory, in this
//! network namespace.

use super::firewall::Firewall;
use super::forwarding::{Forwarding, Loan};
use super::lease::{self, Leases};
use super::namespace::Namespace;
use super::nft::{Kind, Socket, as_number};
use super::record::Record;
use super::rules;
use super::table::{self, Table};
use super::{Error, conntrack, firewall, link};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

/// The ways of all guests that this owner has here.
pub(super) struct Ways {
    socket: Socket,
    table: Table,
    /// What drops what is led to guests: then no rule leads clients to published ports of the guest that this is for.
    firewall: Option<Firewall>,
    /// Interfaces that are known to be borrowed.
    borrowed: Vec<Loan>,
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
            firewall: None,
            borrowed: Vec::new(),
        })
    }

    /// Opens the ways of one guest, who has a lease; says what will not work all the same. Of interfaces that clients may come in
    /// on, `clients` are those that the table may not know.
    ///
    /// # Errors
    /// When there are no rules: nothing is open then.
    pub fn add(
        &mut self,
        leases: &mut Leases,
        record: &Record,
        clients: &[String],
    ) -> Result<Vec<String>, Error> {
        // One of another owner may have been killed, and what it had is not cleared yet.
        if !self.table.others(&mut self.socket).is_empty() {
            self.forget_connections(&[record.guest]);
        }
        self.firewall = firewall::in_the_way(&mut self.socket);
        // What may be left of guests that nobody remembers would be in the way.
        let is_first = leases.taken()?.guests(Namespace::here()) <= 1;
        let is_new = is_first || self.extend(record).is_err();
        if is_new {
            let live = lease::live_here(leases)?;
            self.build(live.iter()).map_err(refused)?;
        }
        let mut warnings = Vec::new();
        let forwarding = Forwarding::of(leases, &[]);
        let mut loans = forwarding.loans(&mut self.socket, &self.table);
        let switched = forwarding.switch_on(&mut loans, &mut self.socket, &self.table, &record.tap);
        self.borrowed = loans;
        // What it has noted is no lease.
        if let Err(error) = leases.stamp() {
            log::debug!("the next start has to count: {error}");
        }
        let routed = switched.and_then(|()| match is_new {
            true => self.route_all(),
            false => self.route(clients),
        });
        if let Err(error) = routed {
            warnings.push(format!(
                "the guest reaches nothing but this host: packets cannot be forwarded ({error})"
            ));
        }
        warnings.extend(
            self.firewall
                .iter()
                .map(|firewall| firewall.warning(&record.tap)),
        );
        Ok(warnings)
    }

    /// Whoever has the addresses next gets no connections with them.
    fn forget_connections(&mut self, addresses: &[Ipv4Addr]) {
        if let Err(error) = conntrack::forget(&mut self.socket, addresses) {
            log::info!("connections of guests that have ended are not forgotten: {error}");
        }
    }

    /// Interfaces that are known to be borrowed.
    pub fn borrowed(&self) -> &[Loan] {
        &self.borrowed
    }

    /// The firewall that was seen to forward nothing by itself.
    pub fn firewall(&self) -> Option<&Firewall> {
        self.firewall.as_ref()
    }

    /// Looks at this host's firewalls. Where one is in the way, what a rule leads to the guest is dropped: clients are
    /// left to the proxy, until it is gone.
    ///
    /// # Errors
    /// When clients are led where they were.
    pub fn heed_firewalls(&mut self, record: &Record) -> io::Result<()> {
        let found = firewall::in_the_way(&mut self.socket);
        if found.is_some() != self.firewall.is_some() {
            self.socket.change(|batch| match found {
                Some(_) => self.table.unpublish(batch, record),
                None => self.table.publish(batch, record),
            })?;
        }
        self.firewall = found;
        Ok(())
    }

    /// What the guest needs in the table, once more: what is there stays.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn extend(&mut self, record: &Record) -> io::Result<()> {
        let publishes = self.firewall.is_none();
        self.socket
            .change(|batch| self.table.open(batch, record, publishes))
    }

    /// The table, anew.
    fn build<'a>(&mut self, guests: impl Iterator<Item = &'a Record>) -> io::Result<()> {
        let publishes = self.firewall.is_none();
        self.socket.change(|batch| {
            self.table.delete(batch);
            self.table.create(batch);
            guests.for_each(|record| self.table.open(batch, record, publishes));
        })
    }

    /// Clients come in on whatever forwards.
    fn route_all(&mut self) -> io::Result<()> {
        let mut interfaces = link::interfaces();
        interfaces.retain(|name| link::forwards(name));
        self.route(&interfaces)
    }

    /// Clients come in on these, and on those that are borrowed.
    fn route(&mut self, interfaces: &[String]) -> io::Result<()> {
        let borrowed = self.borrowed.iter().map(Loan::interface);
        self.socket.change(|batch| {
            for interface in interfaces.iter().map(String::as_str).chain(borrowed) {
                self.table.route(batch, interface);
            }
        })
    }

    /// Closes the ways of guests, and tells whether they are. `last`: no other guest has any here. `borrowed`: what
    /// is known to be, whatever is noted.
    pub fn remove(
        &mut self,
        leases: &Leases,
        gone: &[Record],
        last: bool,
        borrowed: &[Loan],
    ) -> bool {
        let forwarding = Forwarding::of(leases, borrowed);
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
            // It was made by a kvmlet with more rights, which will clear it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                log::info!("the network of a VM is left over: {error}");
                return false;
            }
            Err(error) => {
                log::warn!("cannot take down the network of a VM: {error}");
                return false;
            }
        }
        // Now that no rule leads anybody there. At an end, not at a start: the kernel takes ten milliseconds to look
        // through all places where it may have some.
        self.forget_connections(&gone.iter().map(|record| record.guest).collect::<Vec<_>>());
        if last {
            forwarding.switch_off(&loans, &mut self.socket, &self.table);
        }
        true
    }

    /// Makes the table anew, with all guests that live.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn rebuild(&mut self, leases: &Leases, live: &[Record]) -> Result<(), Error> {
        self.firewall = firewall::in_the_way(&mut self.socket);
        self.build(live.iter()).map_err(refused)?;
        Forwarding::of(leases, &self.borrowed)
            .note_again(&mut self.socket, &self.table)
            .and_then(|()| self.route_all())
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
        Forwarding::of(leases, &self.borrowed).give_up(&mut self.socket, &self.table);
        self.borrowed.retain(Loan::is_still_ours);
    }
}

impl AsFd for Ways {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Why there are no rules.
fn refused(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Capability {
            to: "filter a guest's packets",
        },
        _ => Error::Rules { source },
    }
}
