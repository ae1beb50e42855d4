//! Images between registries, archives and the store: a client of registries that waits for its answers, and the verbs
//! of the program `kvmlet-oci`, which `kvmlet pull` and others execute. For kvmlet's own programs: nothing here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod bounded;
pub mod build;
pub mod changes;
pub mod commit;
pub mod confined;
pub mod credentials;
pub mod load;
pub mod mirrors;
pub mod outdated;
pub mod progress;
pub mod pull;
pub mod push;
pub mod registry;
pub mod save;
pub mod unpack;
pub mod verbs;
