//! What a driver says of a queue before it is used (virtio 1.2 §4.1.5.1.3, §4.2.3.2).

use crate::devices::virtio::QueueState;
use crate::devices::virtio::rings::{Places, Rings};
use crate::memory::GuestRam;
use kvmlet_sys::event::Event;
use std::io;

/// A queue as its driver sets it up.
pub struct QueueSetup {
    /// The most entries that it can have.
    pub size_max: u16,
    /// Entries that the driver has chosen.
    pub size: u32,
    /// The driver has set it up.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub driver: u64,
    /// Guest physical address of the used ring.
    pub device: u64,
    pub(super) notify: Event,
    pub(super) connected: bool,
    /// The driver has taken it away, and the device has not let go of it yet.
    pub(super) retires: bool,
}

/// A queue, as its driver has set it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueRecord {
    /// Entries that the driver has chosen.
    pub size: u32,
    /// The driver has set it up.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub driver: u64,
    /// Guest physical address of the used ring.
    pub device: u64,
    /// How far it has come, if the device uses it.
    pub progress: Option<QueueState>,
}

impl QueueSetup {
    pub(super) fn new(size_max: u16) -> io::Result<Self> {
        let notify = Event::new()?;
        let (size, ready) = (u32::from(size_max), false);
        Ok(Self {
            size_max,
            size,
            ready,
            descriptors: 0,
            driver: 0,
            device: 0,
            notify,
            connected: false,
            retires: false,
        })
    }

    pub(super) fn reset(&mut self) {
        (self.size, self.ready, self.retires) = (u32::from(self.size_max), false, false);
        (self.descriptors, self.driver, self.device) = (0, 0, 0);
        // A notification from before the reset must not wake the device after it.
        self.notify.take();
    }

    /// Checks everything that the driver has said (§2.7) and finds the queue in its memory.
    pub(super) fn find(&self, memory: &GuestRam) -> Option<Rings> {
        let places = (self.descriptors, self.driver, self.device);
        self.find_at(memory, self.size, places)
    }

    /// The same of one that another driver has set up.
    pub(super) fn find_as(&self, said: &QueueRecord, memory: &GuestRam) -> Option<Rings> {
        let places = (said.descriptors, said.driver, said.device);
        self.find_at(memory, said.size, places)
    }

    fn find_at(
        &self,
        memory: &GuestRam,
        size: u32,
        (descriptors, driver, device): (u64, u64, u64),
    ) -> Option<Rings> {
        let size = u16::try_from(size).ok();
        let size = size.filter(|size| *size <= self.size_max)?;
        let places = Places {
            size,
            descriptors,
            driver,
            device,
        };
        Rings::find(memory, places)
    }
}
