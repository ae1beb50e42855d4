//! What is kept in files: notes of what VMs have of this host, in the [runtime] directory, and what was [built] to be booted.

pub mod built;
pub mod claims;
pub(crate) mod roll;
pub mod runtime;
