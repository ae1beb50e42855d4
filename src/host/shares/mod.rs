//! What a VM has of its host and others have not: what was promised to whom is in the [ledger], and [cgroups](cgroup) hold
//! each to that.

pub mod cgroup;
pub mod descriptors;
pub mod ledger;
