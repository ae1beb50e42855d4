//! The MMIO transport, version 2 (virtio 1.2 §4.2).

mod halt;
mod negotiation;
mod registers;
mod setup;

use super::VirtioDevice;
use super::interrupt::Interrupt;
use crate::devices::{Action, Device};
use crate::memory::GuestRam;
use crate::thread::{Beginning, OnStart, ThreadKind};
use kvmlet_sys::event::Event;
use setup::QueueSetup;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Size of a device's registers, in bytes.
pub const MMIO_BYTES: u64 = 0x1000;

/// Where a driver writes the number of a queue that it has filled; an ioeventfd spares the exit.
pub const QUEUE_NOTIFY_OFFSET: u64 = registers::QUEUE_NOTIFY;

/// A short cut for notifications: while connected, a driver's write of a queue's number to
/// [`QUEUE_NOTIFY_OFFSET`] signals the queue's event without passing through the transport.
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

/// What the device does with its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// Nothing, and it has none.
    Idle,
    /// Its workers serve them.
    Active,
    /// Its workers have been called off and have not let go of them yet.
    Halting,
}

/// The registers of one device.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: GuestRam,
    interrupt: Arc<Interrupt>,
    doorbell: Option<Box<dyn Doorbell>>,
    status: u32,
    activity: Activity,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<QueueSetup>,
}

impl MmioTransport {
    /// Puts a device behind registers. Its interrupt raises `line`.
    ///
    /// # Errors
    /// When the host gives no events for its queues.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestRam, line: Event) -> io::Result<Self> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|size| QueueSetup::new(*size))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            interrupt: Arc::new(Interrupt::new(device.name(), line)),
            device,
            memory,
            doorbell: None,
            status: 0,
            activity: Activity::Idle,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues,
        })
    }

    /// Spares notifications the way through the transport while the driver is ready.
    pub fn with_doorbell(mut self, doorbell: Box<dyn Doorbell>) -> Self {
        self.doorbell = Some(doorbell);
        self
    }

    /// Begins to start the threads that will serve the queues. Those that are not started here start when they
    /// are needed.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start_workers(&mut self, on_start: &Arc<OnStart>) -> io::Result<Vec<Beginning>> {
        let workers = self.device.workers().into_iter();
        let begun = workers.filter_map(|worker| worker.start(on_start).transpose());
        begun.collect()
    }

    /// What the threads do that serve the queues.
    pub fn threads(&mut self) -> Vec<ThreadKind> {
        let workers = self.device.workers().into_iter();
        workers.map(|worker| worker.kind()).collect()
    }

    /// Tells the device to stand still, and does not wait until it does. Its driver does as well: no vCPU runs.
    pub fn pause(&mut self) {
        let workers = self.device.workers().into_iter();
        workers.for_each(|worker| worker.pause());
    }

    /// Waits until the device stands still, but no longer than until then; returns whether it does.
    pub fn is_still(&mut self, deadline: Instant) -> bool {
        let mut workers = self.device.workers().into_iter();
        workers.all(|worker| worker.is_still(deadline))
    }

    /// Has the device go on that [stood still](Self::pause).
    pub fn resume(&mut self) {
        let workers = self.device.workers().into_iter();
        workers.for_each(|worker| worker.wake());
    }

    /// Tells the device to end all work, for good, and does not wait for it.
    pub fn call_off(&mut self) {
        let workers = self.device.workers().into_iter();
        workers.for_each(|worker| worker.call_off());
    }

    /// Waits until the device works on nothing any more, but no longer than until then; returns whether it does.
    pub fn has_let_go(&mut self, deadline: Instant) -> bool {
        let mut workers = self.device.workers().into_iter();
        workers.all(|worker| worker.has_let_go(deadline))
    }

    /// The device behind the registers.
    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }
}

impl Device for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= registers::CONFIG {
            self.device.read_config(offset - registers::CONFIG, data);
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            // §4.2.2.2: registers are accessed by aligned 32-bit reads and writes only.
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if offset >= registers::CONFIG {
            if self.status & negotiation::DRIVER != 0 {
                self.device.write_config(offset - registers::CONFIG, data);
            }
        } else if let (true, Ok(bytes)) = (offset.is_multiple_of(4), data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
        Action::None
    }
}

#[cfg(test)]
mod tests;
