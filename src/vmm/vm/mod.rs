//! One microVM: from a configuration to running vCPUs and back.

mod board;
mod boot_trace;
mod built;
mod command_line;
mod cpuid_offer;
mod devices;
mod error;
mod exit;
mod failure;
mod fitting;
mod handle;
mod irq;
mod kick;
mod kvm_state;
mod lifecycle;
mod machine;
mod power_button;
mod processors;
mod slots;
mod vcpu;
mod workers;

pub use boot_trace::{BootTrace, Phase};
pub use devices::{Endpoint, FarEnds, make_scratch};
pub use error::Error;
pub use exit::ExitReason;
pub use failure::{Cause, Failure};
pub use fitting::FittingConfig;
pub use handle::{Starting, VmHandle};
pub use lifecycle::State;
pub use machine::Vm;
