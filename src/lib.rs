//! kvmlet boots one service per microVM on Linux KVM.
//!
//! ```no_run
//! use kvmlet::{MemorySize, Vm, VmConfig};
//!
//! # fn main() -> Result<(), kvmlet::Error> {
//! let config = VmConfig::builder().kernel("vmlinux").memory(128.mib()).vcpus(2).build()?;
//! let vm = Vm::new(config)?.start()?; // vCPU threads run; this thread is free
//! let reason = vm.wait()?; // ExitReason::Shutdown { code: 0 }
//! # Ok(())
//! # }
//! ```

pub mod arch;
pub mod cli;
pub mod config;
pub mod devices;
pub mod host;
pub mod memory;
pub mod vm;

pub use config::{Memory, MemorySize, VmConfig};
pub use vm::{Error, ExitReason, Vm, VmHandle};
