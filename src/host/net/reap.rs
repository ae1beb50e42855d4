//! Clearing what VMs leave over, those that end and those that were killed.

use super::Error;
use super::forwarding::{self, Loan};
use super::lease::{self, Lease, Leases, Left};
use super::leftover::{self, Known};
use super::namespace::{self, Namespace};
use super::nat::Ways;
use crate::state::claims;
use crate::state::runtime::RuntimeDirectory;

/// A VM that has ended, with the interfaces that it knows to be borrowed.
pub(super) struct Ended<'a> {
    pub lease: &'a Lease,
    pub borrowed: &'a [Loan],
}

/// Clears what VMs that have ended, and those that were killed, have left over. What cannot be cleared stays noted. Of the one
/// that has `ended` somebody else may have cleared it.
pub(super) fn reap(leases: &mut Leases, ended: Option<Ended<'_>>) -> Result<(), Error> {
    reap_and_keep(leases, ended).map(drop)
}

/// The same; what comes along is closed by whoever has no lock any more. The kernel waits then until nobody can use what was
/// cleared, for ten milliseconds and more.
pub(super) fn reap_and_keep(
    leases: &mut Leases,
    ended: Option<Ended<'_>>,
) -> Result<Option<Ways>, Error> {
    let here = Namespace::here();
    let known = Known::of(leases, here);
    let left = leases.left(|left| known.leave_out(left))?;
    let ended = ended.filter(|ended| left.iter().any(|left| ended.lease.is_named(&left.name)));
    let (mut gone, mut cleared, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    for left in left {
        match left.record.as_ref().filter(|it| it.is_credible(&left.name)) {
            // The tap itself goes with its owner.
            Some(record) if record.is_of(here) => {
                gone.push(record.clone());
                cleared.push(left);
            }
            Some(record) if record.namespace == here.inode => leave(leases, &left)?,
            Some(_) => elsewhere.push(left),
            None => leases.forget(&left)?,
        }
    }
    leave_what_went(leases, elsewhere, &known)?;
    if gone.is_empty() {
        return Ok(None);
    }
    let borrowed = ended.map_or(&[][..], |ended| ended.borrowed);
    // Those that are to go are counted, too.
    let is_last = leases.taken()?.guests(here) as usize <= gone.len();
    let mut ways = Ways::open(leases);
    let closed = match &mut ways {
        Ok(ways) => ways.remove(leases, &gone, is_last, borrowed),
        Err(error) => {
            log::debug!("there were no rules for guests: {error}");
            true
        }
    };
    if closed {
        for left in &cleared {
            leases.forget(left)?;
        }
    }
    Ok(ways.ok())
}

/// Forgets leases that were of other namespaces and went with them. Where the namespace is still there, its rules and what
/// it has borrowed are for a command there.
fn leave_what_went(leases: &mut Leases, elsewhere: Vec<Left>, known: &Known) -> Result<(), Error> {
    if elsewhere.iter().all(|left| known.contains(&left.name)) {
        return Ok(());
    }
    let of = |left: &Left| left.record.as_ref().map_or(0, |record| record.namespace);
    let inodes: Vec<u64> = elsewhere.iter().map(of).collect();
    let gone = namespace::gone(&inodes);
    let went = |left: &Left| gone.contains(&of(left));
    let (went, stays): (Vec<_>, Vec<_>) = elsewhere.into_iter().partition(went);
    for left in &went {
        leave(leases, left)?;
    }
    leftover::know(leases, stays.iter().map(|left| &left.name));
    Ok(())
}

/// Forgets a lease whose namespace is gone, with all that was in it.
fn leave(leases: &mut Leases, left: &Left) -> Result<(), Error> {
    if let Some(record) = &left.record {
        forwarding::forget(leases, record.namespace);
    }
    leases.forget(left)
}

/// Clears what VMs have left over that were killed. Every command that deals with VMs does so first, unless another one is
/// about to: then nobody waits.
///
/// # Errors
/// When the notes cannot be used.
pub fn reap_stale(runtime: &RuntimeDirectory) -> Result<(), Error> {
    match lease::lock_existing_at_once(runtime) {
        Ok(Some(mut leases)) if leftover::is_there(&leases)? => reap(&mut leases, None),
        // There is none, or nothing was ever set up.
        Ok(_) | Err(Error::State(claims::Error::Busy { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}
