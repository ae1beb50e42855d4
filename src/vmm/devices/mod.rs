//! What the guest sees beside CPUs and RAM: buses and the devices on them.
//!
//! A device never touches the VM. Writing a register returns an [`Action`], and whoever runs the vCPU acts on
//! it; an interrupt is an [`Event`](kvmlet_sys::event::Event) and where it leads is not known here.

pub mod boot_timer;
pub mod bus;
mod complaints;
pub mod generation;
pub mod i8042;
pub mod ioapic;
pub mod last_output;
pub mod outlet;
pub mod pci;
pub mod power;
pub mod pvpanic;
pub mod serial;
pub mod virtio;

pub use bus::{Bus, Device};
pub use complaints::Complaints;

/// What writing a register asks of the VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Nothing: go on.
    #[default]
    None,
    /// Reset the machine.
    Reset,
    /// Power off; the service inside ended with this code.
    ShutDown {
        /// Exit code, 0 when none was reported.
        code: u8,
    },
    /// The guest kernel has panicked.
    Panic,
}
