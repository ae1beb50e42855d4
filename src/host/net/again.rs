//! Networks that a VM comes back to.

use super::reap::reap;
use super::{choice, lease, patience};
use crate::config::Subnet;
use crate::state::runtime::RuntimeDirectory;

/// Can a VM have a network that one had before? Who is about to be gone is waited for.
pub fn is_free(subnet: Subnet, runtime: &RuntimeDirectory) -> bool {
    let free = patience::in_turn(|| {
        let mut leases = lease::lock(runtime)?;
        reap(&mut leases, None)?;
        choice::check_network(&mut leases, subnet)
    });
    free.is_ok()
}
