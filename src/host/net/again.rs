//! Networks that a VM comes back to.

use super::reap::reap;
use super::{lease, patience};
use crate::config::Subnet;
use crate::state::runtime::RuntimeDirectory;

/// Can a VM have a network that one had before? Who is about to be gone is waited for.
pub fn is_free(subnet: Subnet, runtime: &RuntimeDirectory) -> bool {
    let free = patience::in_turn(|| {
        let leases = lease::lock(runtime)?;
        reap(&leases, None)?;
        lease::choose_network(&leases, Some(subnet))
    });
    free.is_ok()
}
