//! Virtio devices (virtio 1.2).
//!
//! A device is two things. Its *front* ([`VirtioDevice`]) has an id, features and a configuration space and
//! sits behind a [`Transport`]'s registers; it knows neither KVM nor threads. When the driver is ready the
//! transport *activates* it: the front gets its [queues](Virtqueue) and gives them to a [`Worker`] in a [`Server`],
//! until a reset takes the queues back. A device that is to *sleep* gives back queues and [state](DeviceState), and another
//! activation goes on with them, here or elsewhere.

pub mod balloon;
pub mod block;
mod broken;
mod chain;
#[cfg(test)]
mod contract;
mod desk;
#[cfg(test)]
pub(crate) mod fake_driver;
mod interrupt;
mod iovecs;
mod mmio;
pub mod net;
mod orders;
mod pci;
mod polling;
mod queue;
pub mod rate_limiter;
mod rings;
pub mod rng;
mod server;
mod spec;
mod transport;
pub mod vsock;
mod worker;

pub use broken::Broken;
pub use chain::{Chain, Segment};
pub use interrupt::{Interrupt, Signal};
pub use iovecs::Iovecs;
pub use mmio::{MMIO_BYTES, MmioTransport, QUEUE_NOTIFY_OFFSET};
pub use orders::{Order, Orders, Patience};
pub use pci::{NOTIFY_BYTES, NOTIFY_OFFSET, PciTransport};
use polling::Polling;
pub use queue::{Drained, Fate, QueueState, Virtqueue};
pub use server::Server;
pub use spec::{DeviceSpec, NoEvents};
pub use transport::{
    Doorbell, QueueRecord, QueueSetup, Selection, Session, SessionState, TRANSPORT_FEATURES,
    Transport, TransportState, Unfit,
};
pub use worker::{PATIENCE, Worker, WorkerThread};

use rate_limiter::RateLimiter;
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
    /// Sockets (§5.10).
    Socket = 19,
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

    /// Gives back what it got when it was activated, as it is now. Called when the workers have let go of their work, or
    /// sleep.
    fn halt(&mut self) -> Halted;

    /// What [`halt`](Self::halt) would give back: how far each queue has come, by its number, and the rest. Called when the
    /// workers sleep, which go on with all of it when they are woken.
    fn look(&self) -> (Vec<Option<QueueState>>, DeviceState);

    /// Its rate limits, always in the same order. Time stands still for them while it sleeps.
    fn limiters(&self) -> Vec<&RateLimiter> {
        Vec::new()
    }

    /// Be as before any activation. Called after [`halt`](Self::halt).
    fn reset(&mut self);

    /// The threads that serve the queues.
    fn workers(&mut self) -> Vec<&mut dyn WorkerThread>;
}

/// What a device gets when its driver is ready.
pub struct Activation {
    /// Features that both sides agreed on, all 64 bits.
    pub features: u64,
    /// The queues that the driver set up, in the order of their numbers; `None` where it left one out.
    pub queues: Vec<Option<Virtqueue>>,
    /// The device's interrupt, for changes of its configuration.
    pub interrupt: Arc<Interrupt>,
    /// What the device is to go on with, if it [was halted](VirtioDevice::halt) asleep.
    pub state: Option<DeviceState>,
}

/// What an active device gives back: nothing of it is in flight.
pub struct Halted {
    /// Its queues, by their numbers; `None` for those that it did not use, or lost with a thread that panicked.
    pub queues: Vec<Option<Virtqueue>>,
    /// What else its driver relies on.
    pub state: DeviceState,
}

/// As many places as a device has queues, with what there is of those that it uses, by their numbers.
fn places<T>(queues: impl IntoIterator<Item = (u16, T)>, count: usize) -> Vec<Option<T>> {
    let mut places: Vec<_> = (0..count).map(|_| None).collect();
    for (number, queue) in queues {
        places[usize::from(number)] = Some(queue);
    }
    places
}

impl Halted {
    fn new(queues: impl IntoIterator<Item = Virtqueue>, count: usize, state: DeviceState) -> Self {
        let queues = queues.into_iter().map(|queue| (queue.number(), queue));
        let queues = places(queues, count);
        Self { queues, state }
    }
}

/// What a driver has made of a device, beside features and queues. What the host has made of it, as limits and sizes,
/// is not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceState {
    /// An entropy source has nothing.
    Rng,
    /// Of a disk.
    Block(block::BlockState),
    /// Of a network interface.
    Net(net::NetState),
    /// Of a balloon.
    Balloon(balloon::BalloonState),
    /// A socket device has nothing that outlives its connections, and those end.
    Vsock,
}

/// The state of another type of device.
fn foreign_state() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the state to go on with is another type of device's",
    )
}
