//! Which vector is for what (virtio 1.2 §4.1.5.1.2), and what a driver that has none is told when it asks.

use crate::devices::pci::Msix;
use crate::devices::virtio::interrupt::{Signal, Taker};
use std::io;
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
    /// Bits that somebody else may have reason to set, who has a queue's vector.
    lent: AtomicU8,
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
            lent: AtomicU8::new(0),
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
        // A queue's stays while somebody else has it, which the driver sees as well.
        if let Some(place) = self.place(queue)
            && (queue.is_none() || self.lent.load(Ordering::Acquire) == 0)
        {
            let there = vector < self.msix.vectors();
            place.store(if there { vector } else { NONE }, Ordering::Release);
        }
    }

    /// All vectors: of changes first, then of queues.
    pub fn vectors(&self) -> Vec<u16> {
        let all = [&self.changes].into_iter().chain(&self.queues);
        all.map(|place| place.load(Ordering::Acquire)).collect()
    }

    /// Has vectors be what another's were, and a driver without any be told what that one's had not asked.
    pub fn take_up(&self, vectors: &[u16], status: u8) {
        let of = (0..).map(Some);
        for (queue, vector) in [None].into_iter().chain(of).zip(vectors) {
            self.set_vector(queue, *vector);
        }
        let status = status & (USED_BUFFER | CONFIG_CHANGE);
        self.status.store(status, Ordering::Release);
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
        self.status.load(Ordering::Acquire) | self.unheard()
    }

    /// What has happened since this was last asked.
    pub fn take_status(&self) -> u8 {
        self.status.swap(0, Ordering::AcqRel) | self.unheard()
    }

    /// What a driver is to look after that has switched messages off since somebody else sends them.
    fn unheard(&self) -> u8 {
        match self.msix.is_enabled() {
            true => 0,
            false => self.lent.load(Ordering::Acquire),
        }
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
        self.lent.store(0, Ordering::Release);
        self.msix.take_back();
    }

    fn lend(&self, queue: u16, take: Taker<'_>) -> io::Result<bool> {
        if !self.msix.is_enabled() {
            return Ok(false);
        }
        let lent = self.msix.lend(self.vector(Some(queue)), take)?;
        if lent {
            self.lent.store(USED_BUFFER, Ordering::Release);
        }
        Ok(lent)
    }

    /// Messages are not acknowledged: each may have been on its way.
    fn again(&self) {
        for vector in self.vectors() {
            self.msix.interrupt(vector);
        }
    }
}
