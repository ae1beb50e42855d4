//! A VM that sleeps, as plain data and as a file.
//!
//! A file has two parts. The first is sections, each with its kind, length and checksum: [`VmState`]. The second
//! is guest memory as it lies there, page for page, with holes where it is zero, so that a VM goes on by mapping it and
//! clones share what they do not change. A table of checksums and a mark end the file: what is cut short is noticed.
//!
//! A file can be a *difference*: it has the pages that have changed since another one, its base, which is whole, and is of use
//! with that alone. It says which pages these are, and which file is its base; its checksums are of memory as it is with both.
//!
//! Whoever writes the file can note something in it, for whoever reads it: whose VM it was.
//!
//! Host paths, names of taps and sockets are not in it: whoever has a VM go on says what its disks and interfaces are now.
//!
//! It may come from anybody. [`Saved::open`] reads and checks all of the first part before anything is made of it, in the
//! process that reads the configuration; the VM's own process gets plain data and a descriptor of memory.

mod bytes;
mod difference;
mod fault;
mod file;
mod given;
mod kvm_bytes;
mod layout;
mod parts;
mod records;
mod sections;
mod sink;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod whole;

pub use difference::Difference;
pub use fault::Fault;
pub use file::{Error, Saved, annotate, beginning, is_foreign, noted, noted_in, write_whole};
pub use given::write_into;
pub use layout::{MEMORY_START, VERSION, most_bytes};
pub use sections::{decode, encode};
pub use sink::Sink;
pub use state::{
    BalloonRecord, DiskRecord, MachineState, NetRecord, SnapshotId, VcpuState, VmState,
};
pub use stream::{put, put_rest, put_unless_zero};
