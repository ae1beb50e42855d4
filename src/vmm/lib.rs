//! One microVM on Linux KVM: the machine, what is in it, and the system calls that its threads may make. It knows no host
//! beyond the files of its configuration: networks, shares and walls are others' work. For kvmlet's own crates: nothing
//! here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

// Tests make calls from within lists that have none for memory.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: kvmlet_sys::heap::Heap = kvmlet_sys::heap::Heap;

#[cfg(test)]
#[path = "../sys/alone.rs"]
mod alone;
pub mod arch;
pub mod devices;
pub mod disk;
pub mod memory;
pub mod snapshot;
pub mod system_calls;
pub mod thread;
pub mod vm;

use kvmlet_spec as config;
pub use vm::{Error, ExitReason, Vm, VmHandle};
