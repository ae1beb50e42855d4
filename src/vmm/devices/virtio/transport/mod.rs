//! What stands between a device and its driver, of whatever kind: registers differ, what they are about does not.

mod halt;
mod negotiation;
mod session;
mod setup;
mod sleep;

pub use negotiation::TRANSPORT_FEATURES;
#[cfg(test)]
pub(super) use negotiation::VERSION_1;
pub use session::Session;
pub use setup::QueueSetup;

use crate::devices::Device;
use kvmlet_sys::event::Event;
use std::io;

/// Registers by which a driver reaches a device.
pub trait Transport: Device {
    /// The device, and how far it has come with its driver.
    fn session(&mut self) -> &mut Session;
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
