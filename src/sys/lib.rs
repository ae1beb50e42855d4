//! Linux in safe words: processes, signals, clocks, files that are written whole, locks, `/dev/kvm`. It knows neither VMs
//! nor what kvmlet gives them. For kvmlet's own crates: nothing here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

// Tests make calls from within lists that have none for memory.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: crate::heap::Heap = crate::heap::Heap;

pub mod acceptor;
#[cfg(test)]
mod alone;
pub mod arguments;
pub mod byte_lock;
pub mod causes;
pub mod clock;
pub mod code;
pub mod cpu_time;
pub mod descriptors;
pub mod directory;
pub mod environment;
pub mod event;
pub mod facts;
pub mod faults;
pub mod first_thread;
pub mod frames;
pub mod heap;
pub mod interrupt;
pub mod kin;
pub mod kvm;
pub mod lack;
pub mod lock;
pub mod obituary;
pub mod output;
pub mod page_cache;
pub mod process;
pub mod regular;
pub mod ring;
pub mod sealed;
pub mod seccomp;
pub mod settling;
pub mod signals;
pub mod stack;
pub mod standard_error;
pub mod streams;
pub mod tap;
pub mod temporary;
pub mod thread;
pub mod trusted;
pub mod users;
pub mod vhost;
pub mod wait;
pub mod whole_file;
pub mod written;
