//! Clearing what VMs leave over, those that end and those that were killed.

use super::Error;
use super::forwarding::{self, Loan};
use super::lease::{self, Lease, Leases, Record};
use super::namespace::{self, Namespace};
use super::nat::Ways;
use crate::state::runtime::RuntimeDirectory;

/// A VM that has ended, with the interfaces that it knows to be borrowed.
pub(super) struct Ended<'a> {
    pub lease: &'a Lease,
    pub borrowed: &'a [Loan],
}

/// Clears what VMs that have ended, and those that were killed, have left over; returns those that live in this
/// network namespace. What cannot be cleared stays noted. Of the one that has `ended` somebody else may have cleared it.
pub(super) fn reap(leases: &Leases, ended: Option<Ended<'_>>) -> Result<Vec<Record>, Error> {
    let here = Namespace::here();
    let (mut live, stale) = leases.all()?;
    live.retain(|record| record.is_of(here));
    let (mut gone, mut cleared) = (Vec::new(), Vec::new());
    let ended = ended.filter(|ended| stale.iter().any(|(name, _)| ended.lease.is_named(name)));
    for (name, record) in stale {
        match record.filter(|record| record.is_credible(&name)) {
            // The tap itself goes with its owner.
            Some(record) if record.is_of(here) => {
                gone.push(record);
                cleared.push(name);
            }
            Some(record) if record.namespace == here.inode => leave(leases, &name, &record),
            // Its rules, and what it has borrowed, are for a command there.
            Some(record) if namespace::may_live(record.namespace) => {}
            Some(record) => leave(leases, &name, &record),
            None => leases.remove(&name),
        }
    }
    if gone.is_empty() {
        return Ok(live);
    }
    let borrowed = ended.map_or(&[][..], |ended| ended.borrowed);
    let closed = match Ways::open(leases) {
        Ok(mut ways) => ways.remove(leases, &gone, live.is_empty(), borrowed),
        Err(error) => {
            log::debug!("there were no rules for guests: {error}");
            true
        }
    };
    if !closed {
        return Ok(live);
    }
    for name in cleared {
        leases.remove(&name);
    }
    Ok(live)
}

/// Forgets a lease whose namespace is gone, with all that was in it.
fn leave(leases: &Leases, name: &str, record: &Record) {
    forwarding::forget(leases, record.namespace);
    leases.remove(name);
}

/// Clears what VMs have left over that were killed. Every command that deals with VMs does so first.
///
/// # Errors
/// When the notes cannot be used.
pub fn reap_stale(runtime: &RuntimeDirectory) -> Result<(), Error> {
    match lease::lock_existing(runtime)? {
        Some(leases) => reap(&leases, None).map(drop),
        // Nothing was ever set up.
        None => Ok(()),
    }
}
