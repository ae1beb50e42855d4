//! What stands between a device and its driver, of whatever kind: registers differ, what they are about does not.

mod halt;
mod negotiation;
mod selection;
mod session;
mod setup;
mod sleep;
mod state;

pub use negotiation::TRANSPORT_FEATURES;
#[cfg(test)]
pub(super) use negotiation::VERSION_1;
pub use selection::Selection;
pub use session::Session;
pub use setup::{QueueRecord, QueueSetup};
pub use state::{SessionState, Unfit};

use crate::devices::Device;
use crate::devices::pci::FunctionState;
use kvmlet_sys::event::Event;
use std::io;

/// Registers by which a driver reaches a device.
pub trait Transport: Device {
    /// The device, and how far it has come with its driver.
    fn session(&mut self) -> &mut Session;

    /// Registers and all behind them, of a device that [rests](Session::rest).
    fn state(&mut self) -> TransportState;

    /// Goes on where another has stopped.
    ///
    /// # Errors
    /// As [`Session::take_up`].
    fn take_up(&mut self, state: &TransportState) -> Result<(), Unfit>;
}

/// What registers hold, and how far the device behind them has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportState {
    /// What the driver has selected.
    pub selection: Selection,
    /// What the driver was told and has not acknowledged.
    pub interrupt_status: u32,
    /// The device.
    pub session: SessionState,
    /// What the driver has made of its function, if it is on a PCI bus.
    pub function: Option<FunctionState>,
}

/// A short cut for notifications: while connected, a driver's notification of a queue signals the queue's event without
/// passing through the transport.
///
/// It is connected when the driver is ready, not before: a KVM that has ioeventfds takes some 14 ms longer
/// to end (its srcu_barrier), which a guest without virtio drivers should not pay for.
pub trait Doorbell: Send {
    /// Connects a queue.
    ///
    /// # Errors
    /// When the host refuses; notifications then take the long way, through [`Device::write`].
    fn connect(&mut self, queue: u32, event: &Event) -> io::Result<()>;

    /// Undoes [`connect`](Self::connect).
    fn disconnect(&mut self, queue: u32, event: &Event);
}
