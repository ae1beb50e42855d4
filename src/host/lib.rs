//! What a host gives a microVM: [networks](net), [shares] of CPU, memory and descriptors, and [walls]; and the [state] that is
//! kept of that. It knows no vCPU, no device and no guest. For kvmlet's own crates: nothing here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

// Tests make calls from within lists that have none for memory.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: kvmlet_sys::heap::Heap = kvmlet_sys::heap::Heap;

#[cfg(test)]
#[path = "../sys/alone.rs"]
mod alone;
pub mod net;
#[cfg(test)]
#[path = "../sys/patience.rs"]
mod patience;
pub mod shares;
pub mod state;
pub mod walls;

use kvmlet_spec as config;
pub use kvmlet_sys::facts::{available_memory_bytes, total_memory_bytes};
