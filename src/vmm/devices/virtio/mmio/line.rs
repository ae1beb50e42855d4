//! One interrupt for all that a device has to tell, and a register that says what it was (virtio 1.2 §4.2.2).

use crate::devices::virtio::interrupt::Signal;
use crate::devices::virtio::interrupt::Taker;
use kvmlet_sys::event::Event;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// InterruptStatus bits.
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

pub(super) struct Line {
    event: Event,
    status: AtomicU32,
    /// Bits that somebody else signals, who says so to nobody here: they are set whenever the driver looks, of which one time
    /// too many does no harm.
    lent: AtomicU32,
}

impl Line {
    pub fn new(event: Event) -> Self {
        let (status, lent) = (AtomicU32::new(0), AtomicU32::new(0));
        Self {
            event,
            status,
            lent,
        }
    }

    pub fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire) | self.lent.load(Ordering::Acquire)
    }

    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Is as another was.
    pub fn resume(&self, status: u32) {
        self.status
            .store(status & (USED_BUFFER | CONFIG_CHANGE), Ordering::Release);
    }

    fn raise(&self, why: u32) {
        self.status.fetch_or(why, Ordering::AcqRel);
        self.event.signal();
    }
}

impl Signal for Line {
    fn used_buffers(&self, _queue: u16) {
        self.raise(USED_BUFFER);
    }

    fn config_changed(&self) {
        self.raise(CONFIG_CHANGE);
    }

    fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.lent.store(0, Ordering::Release);
    }

    fn lend(&self, _queue: u16, take: Taker<'_>) -> io::Result<bool> {
        // Before the first: a driver that is interrupted finds the bit.
        self.lent.store(USED_BUFFER, Ordering::Release);
        take(&self.event)?;
        Ok(true)
    }

    fn again(&self) {
        if self.status() != 0 {
            self.event.signal();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_lost_is_told_again() {
        let event = Event::new().unwrap();
        let line = Line::new(event.try_clone().unwrap());
        // There may be nobody yet who could be interrupted.
        line.resume(USED_BUFFER);
        assert_eq!((line.status(), event.take()), (USED_BUFFER, 0));
        line.again();
        assert_eq!(event.take(), 1);
        line.acknowledge(USED_BUFFER);
        line.again();
        assert_eq!(event.take(), 0);
    }
}
