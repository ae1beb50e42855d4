//! Which vector is for what (virtio 1.2 §4.1.5.1.2), and what a driver that has none is told when it asks.

use crate::devices::pci::Msix;
use crate::devices::virtio::interrupt::Signal;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

/// No vector.
pub(super) const NONE: u16 = 0xffff;
/// Bits of the ISR status (§4.1.4.5).
const USED_BUFFER: u8 = 1;
const CONFIG_CHANGE: u8 = 2;

/// A function's messages.
pub(super) struct Messages {
    pub msix: Msix,
    queues: Vec<AtomicU16>,
    changes: AtomicU16,
    status: AtomicU8,
}

impl Messages {
    /// One for each queue, and one more.
    pub fn new(msix: Msix) -> Self {
        let queues = (1..msix.vectors()).map(|_| AtomicU16::new(NONE));
        Self {
            queues: queues.collect(),
            msix,
            changes: AtomicU16::new(NONE),
            status: AtomicU8::new(0),
        }
    }

    pub fn switch(&self, enabled: bool, masked: bool) {
        self.msix.switch(enabled, masked);
    }

    /// The vector of a queue, or of changes.
    pub fn vector(&self, queue: Option<u16>) -> u16 {
        self.place(queue)
            .map_or(NONE, |place| place.load(Ordering::Acquire))
    }

    /// Sets it; one that there is not is none, which the driver sees by reading it.
    pub fn set_vector(&self, queue: Option<u16>, vector: u16) {
        if let Some(place) = self.place(queue) {
            let there = vector < self.msix.vectors();
            place.store(if there { vector } else { NONE }, Ordering::Release);
        }
    }

    /// As after a reset.
    pub fn forget_vectors(&self) {
        let all = self.queues.iter().chain([&self.changes]);
        all.for_each(|place| place.store(NONE, Ordering::Release));
    }

    fn place(&self, queue: Option<u16>) -> Option<&AtomicU16> {
        match queue {
            Some(queue) => self.queues.get(usize::from(queue)),
            None => Some(&self.changes),
        }
    }

    pub fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }

    /// What has happened since this was last asked.
    pub fn take_status(&self) -> u8 {
        self.status.swap(0, Ordering::AcqRel)
    }

    fn tell(&self, queue: Option<u16>, why: u8) {
        match self.msix.is_enabled() {
            true => self.msix.interrupt(self.vector(queue)),
            false => {
                self.status.fetch_or(why, Ordering::AcqRel);
            }
        }
    }
}

impl Signal for Messages {
    fn used_buffers(&self, queue: u16) {
        self.tell(Some(queue), USED_BUFFER);
    }

    fn config_changed(&self) {
        self.tell(None, CONFIG_CHANGE);
    }

    fn reset(&self) {
        self.status.store(0, Ordering::Release);
    }
}
