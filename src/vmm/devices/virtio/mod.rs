//! Virtio devices over MMIO (virtio 1.2).
//!
//! A device is two things. Its *front* ([`VirtioDevice`]) has an id, features and a configuration space and
//! sits behind the transport's registers; it knows neither KVM nor threads. When the driver is ready the
//! transport *activates* it: the front gets its [queues](Virtqueue) and gives them to a [`Worker`],
//! until a reset takes the queues back.

pub mod balloon;
pub mod block;
mod chain;
#[cfg(test)]
pub(crate) mod fake_driver;
mod interrupt;
mod mmio;
pub mod net;
mod orders;
mod queue;
pub mod rate_limiter;
pub mod rng;
mod worker;

pub use chain::{Chain, Segment};
pub use interrupt::Interrupt;
pub use mmio::{Doorbell, MMIO_BYTES, MmioTransport, QUEUE_NOTIFY_OFFSET};
pub use orders::{Order, Orders};
pub use queue::{Broken, Virtqueue};
pub use worker::{PATIENCE, Worker};

use std::io;
use std::sync::Arc;

/// Device types (virtio 1.2 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceType {
    /// Network interface (§5.1).
    Net = 1,
    /// Block device (§5.2).
    Block = 2,
    /// Entropy source (§5.4).
    Rng = 4,
    /// Memory balloon (§5.5).
    Balloon = 5,
}

/// The front of a device: what the transport asks it.
pub trait VirtioDevice: Send {
    /// What kind of device this is.
    fn device_type(&self) -> DeviceType;

    /// A short name for messages and threads: `vda`, `eth0`.
    fn name(&self) -> &str;

    /// Feature bits of this type of device that it offers. The transport adds those that concern every
    /// device (VERSION_1, INDIRECT_DESC, EVENT_IDX).
    fn features(&self) -> u64 {
        0
    }

    /// The most entries that each queue can have; as many queues as there are numbers. Powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` from the device configuration space; bytes that it has not are left as they are (zero).
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    /// Takes a write to the device configuration space; most devices have nothing writable there.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready: start to serve the queues.
    ///
    /// # Errors
    /// When the host gives no thread or the back end cannot start; the transport then calls its workers off and
    /// marks the device as needing a reset.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// Be ready to be activated anew. Called after an activation, when the workers have let go of their work.
    fn reset(&mut self);

    /// The threads that serve the queues.
    fn workers(&mut self) -> &mut [Worker];
}

/// What a device gets when its driver is ready.
pub struct Activation {
    /// Features that both sides agreed on, all 64 bits.
    pub features: u64,
    /// The queues that the driver set up, in the order of their numbers; `None` where it left one out.
    pub queues: Vec<Option<Virtqueue>>,
    /// The device's interrupt, for changes of its configuration.
    pub interrupt: Arc<Interrupt>,
}
