//! The devices that are driven, each on the least of a host that it works with.

pub mod balloon;
pub mod block;
pub mod net;
pub mod rng;
pub mod vsock;
