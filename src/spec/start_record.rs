//! When each phase of a start was done.

use serde::{Deserialize, Serialize};

/// A start as other processes can understand it: in nanoseconds of the host's CLOCK_MONOTONIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct StartRecord {
    /// When the process began to run.
    pub process_ns: u64,
    /// When the VM began to be built.
    pub begun_ns: u64,
    /// The phases that are done, in order.
    pub phases: Vec<PhaseRecord>,
}

/// One phase of a start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct PhaseRecord {
    /// Its short name.
    pub name: String,
    /// When it was done.
    pub done_ns: u64,
}
