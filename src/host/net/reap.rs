//! Clearing what VMs leave over, those that end and those that were killed.

use super::Error;
use super::lease::{self, Leases, Record};
use super::nat::Ways;
use crate::host::runtime::RuntimeDirectory;

/// Clears what a VM that ends, and those that were killed, have left over; returns those that live in this
/// network namespace.
pub(super) fn reap(leases: &Leases, ending: Option<&Record>) -> Result<Vec<Record>, Error> {
    let (_, stale) = leases.all()?;
    let here = lease::namespace();
    let live = lease::live_here(leases)?;
    let mut gone: Vec<Record> = ending.cloned().into_iter().collect();
    for (name, record) in stale {
        // The tap itself went with its owner. What is left in another namespace goes with that, or when the
        // next VM there is the first.
        let here = |record: &Record| record.namespace == here;
        gone.extend(record.filter(|record| here(record) && record.is_credible(&name)));
        leases.remove(&name);
    }
    if !gone.is_empty() {
        match Ways::open(leases) {
            Ok(mut ways) => ways.remove(leases, &gone, live.is_empty()),
            Err(error) => log::debug!("there were no rules for guests: {error}"),
        }
    }
    Ok(live)
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
