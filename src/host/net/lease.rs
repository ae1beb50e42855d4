//! Who has which network: a [claim](crate::state::claims) for each interface that kvmlet has made.
//!
//! A start does not read them all: what they come to is in a [roll], which also tells whose owner was killed. All are read
//! where it cannot be believed, and by who has to know what others have.
//!
//! [roll]: crate::state::roll

use super::Error;
use super::look::Seen;
use super::namespace::Namespace;
use super::record::{DnsPorts, Record, note};
use super::taken::Taken;
use crate::config::{Egress, PortMapping, Subnet};
use crate::state::claims::{Claim, Claims, Leftover};
use crate::state::roll::{Cell, Roll};
use crate::state::runtime::RuntimeDirectory;
use kvmlet_sys::directory::Directory;
use std::io;

/// The directory of leases, locked against other processes until this value is dropped.
pub(super) struct Leases {
    claims: Claims<Record>,
    roll: Roll<Taken>,
    /// Those whose owners live, if they have been looked at one by one.
    live: Option<Vec<Record>>,
}

/// A lease that this process holds.
pub(super) struct Lease {
    claim: Claim<Record>,
    cell: Option<Cell>,
}

/// One whose owner is gone, with what could be read of it.
pub(super) struct Left {
    pub name: String,
    pub record: Option<Record>,
    cell: Option<u32>,
}

const DIRECTORY: &str = "net";

/// Locks the leases in the runtime directory, and makes their directory if it is not there.
pub(super) fn lock(runtime: &RuntimeDirectory) -> Result<Leases, Error> {
    Leases::of(Claims::lock(runtime, DIRECTORY)?)
}

/// The same, if nobody else has them locked just now.
///
/// # Errors
/// [`Busy`](claims::Error::Busy) if somebody has.
pub(super) fn lock_at_once(runtime: &RuntimeDirectory) -> Result<Leases, Error> {
    Leases::of(Claims::lock_at_once(runtime, DIRECTORY)?)
}

/// The same if there ever were some.
pub(super) fn lock_existing_at_once(runtime: &RuntimeDirectory) -> Result<Option<Leases>, Error> {
    let claims = Claims::lock_existing_at_once(runtime, DIRECTORY)?;
    claims.map(Leases::of).transpose()
}

/// Takes a network that was chosen for a tap, with the host's ports that go with it.
pub(super) fn take(
    leases: &mut Leases,
    (tap, index): (&str, u32),
    subnet: Subnet,
    published: &[PortMapping],
    dns: Option<DnsPorts>,
    egress: Egress,
    seen: Seen,
) -> Result<Lease, Error> {
    let here = Namespace::here();
    let mut record = Record {
        pid: std::process::id(),
        namespace: here.inode,
        cookie: here.cookie,
        tap: tap.into(),
        index,
        subnet: subnet.to_string(),
        guest: subnet.guest(),
        published: published.iter().map(PortMapping::to_string).collect(),
        dns,
        egress,
        cell: None,
    };
    let name = note(subnet, here.inode);
    let mut taken = leases.taken()?;
    taken.add(&record);
    taken.see(&record, seen);
    let Leases { claims, roll, .. } = leases;
    let entered = roll.enter(claims.directory(), &name, taken, |cell| {
        record.cell = cell;
        claims.try_claim(&name, record)
    });
    let (claim, cell) = entered.map_err(|error| claims.failed(error))?;
    leases.live = None;
    Ok(Lease { claim, cell })
}

impl Leases {
    fn of(claims: Claims<Record>) -> Result<Self, Error> {
        let roll = Roll::open(claims.directory()).map_err(|error| claims.failed(error))?;
        Ok(Self {
            claims,
            roll,
            live: None,
        })
    }

    /// The directory, for what else is to be remembered there.
    pub fn directory(&self) -> &Directory {
        self.claims.directory()
    }

    /// Those whose owners live, in whichever network namespace. To know them takes a look at each.
    pub fn live(&mut self) -> Result<&[Record], Error> {
        if self.live.is_none() {
            self.count()?;
        }
        Ok(self.live.as_deref().unwrap_or_default())
    }

    /// What they come to, with those that are left over.
    pub fn taken(&mut self) -> Result<Taken, Error> {
        if self.roll.totals().is_none() {
            self.count()?;
        }
        match self.roll.totals() {
            Some(taken) => Ok(taken.clone()),
            None => Ok(Taken::of(self.live()?.iter())),
        }
    }

    /// Those whose owners are gone. Where their names and cells are enough to tell that some are of no concern, `choose` leaves
    /// these out.
    pub fn left(&mut self, choose: impl Fn(&mut Vec<(u32, String)>)) -> Result<Vec<Left>, Error> {
        match self.left_by_roll(choose)? {
            Some(left) => Ok(left),
            None => self.count(),
        }
    }

    /// The same; none where the roll does not tell.
    fn left_by_roll(
        &self,
        choose: impl Fn(&mut Vec<(u32, String)>),
    ) -> Result<Option<Vec<Left>>, Error> {
        let Some(mut ended) = self.roll.ended() else {
            return Ok(None);
        };
        choose(&mut ended);
        let mut left = Vec::new();
        for (cell, name) in ended {
            // Somebody else may hold it, for whom this thread's end is not the end.
            let Some((name, record)) = self.claims.leftover(&name)? else {
                return Ok(None);
            };
            let cell = Some(cell);
            left.push(Left { name, record, cell });
        }
        Ok(Some(left))
    }

    /// Is there one, but for those that are known? Where the roll does not tell, as many are asked for.
    pub fn has_left(&self, most: usize, known: impl Fn(&str) -> bool) -> Result<bool, Error> {
        match self.roll.ended() {
            Some(ended) => Ok(ended.iter().any(|(_, name)| !known(name))),
            None => Ok(self.claims.has_leftover(most, known)?),
        }
    }

    /// What else has changed in their directory is none of their changes.
    pub fn stamp(&mut self) -> io::Result<()> {
        self.roll.stamp(self.claims.directory())
    }

    /// Looks at all of them.
    fn count(&mut self) -> Result<Vec<Left>, Error> {
        let (live, stale) = self.claims.all()?;
        let left = stale.iter().filter_map(|(_, record)| record.as_ref());
        let mut taken = Taken::of(live.iter().chain(left));
        if let Some(before) = self.roll.totals() {
            taken.see_again(before);
        }
        let cells = self.roll.recount(
            self.claims.directory(),
            taken,
            live.iter().map(|record| record.cell),
            stale.iter().map(|(name, _)| &**name),
        );
        let cells = cells.map_err(|error| self.claims.failed(error))?;
        self.live = Some(live);
        let left = |((name, record), cell): (Leftover<Record>, _)| Left { name, record, cell };
        Ok(stale.into_iter().zip(cells).map(left).collect())
    }

    /// Forgets one whose owner is gone.
    pub fn forget(&mut self, left: &Left) -> Result<(), Error> {
        let mut is_exact = true;
        let settle = |taken: &mut Taken| {
            let record = left.record.as_ref();
            is_exact = record.is_some_and(|record| taken.subtract(record));
        };
        let claims = &self.claims;
        let forgotten = self
            .roll
            .leave(claims.directory(), left.cell, settle, || {
                claims.remove(&left.name)
            })
            .and_then(|()| match is_exact {
                true => Ok(()),
                false => self.roll.disbelieve(),
            });
        forgotten.map_err(|error| claims.failed(error).into())
    }
}

impl Lease {
    pub fn record(&self) -> &Record {
        &self.claim.record
    }

    /// Lets go of it, in all processes that have it from this one: it is left over from now on, as if they had been killed.
    pub fn let_go(&mut self) {
        self.end();
        self.claim.let_go();
    }

    /// Says that this owner has ended, who still lives: the kernel would not.
    fn end(&mut self) {
        if let Some(cell) = self.cell.take()
            && let Err(error) = cell.end(self.claim.directory())
        {
            log::debug!("a network counts as taken until this process ends: {error}");
        }
    }

    /// Is it this one that is left over under this name?
    pub fn is_named(&self, name: &str) -> bool {
        self.claim.is_named(name)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.cell.as_ref().is_some_and(Cell::is_held) {
            self.end();
        }
    }
}

/// The guests of this owner in this network namespace.
pub(super) fn live_here(leases: &mut Leases) -> Result<Vec<Record>, Error> {
    let here = Namespace::here();
    let live = leases.live()?.iter().filter(|record| record.is_of(here));
    Ok(live.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::super::look::Look;
    use super::*;

    #[test]
    fn what_a_killed_owner_had_is_known() {
        let place = tempfile::tempdir().unwrap();
        let mut leases = lock(&RuntimeDirectory::at(place.path()).unwrap()).unwrap();
        let choose = |leases: &mut Leases| {
            super::super::choice::choose_network(leases, None, &mut Look::after(None))
        };
        let one = choose(&mut leases).unwrap();
        let first = take(
            &mut leases,
            ("kvmlet0", 1),
            one,
            &[],
            None,
            Egress::All,
            Seen::default(),
        )
        .unwrap();
        let other = choose(&mut leases).unwrap();
        let _second = take(
            &mut leases,
            ("kvmlet1", 2),
            other,
            &[],
            None,
            Egress::All,
            Seen::default(),
        )
        .unwrap();
        assert_ne!(one, other);
        drop(first);
        let stale = leases.count().unwrap();
        assert_eq!((leases.live().unwrap().len(), stale.len()), (1, 1));
        assert_eq!(stale[0].record.as_ref().unwrap().tap, "kvmlet0");
    }
}
