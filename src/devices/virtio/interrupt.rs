//! How a device calls its driver.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// InterruptStatus bits (virtio 1.2 §4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// A device's interrupt line with the status that says why it was raised. Shared by the transport, which
/// reads and acknowledges, and the device's worker, which raises.
#[derive(Debug)]
pub struct Interrupt {
    line: EventFd,
    status: AtomicU32,
    generation: Mutex<u32>,
    needs_reset: AtomicBool,
    raised: AtomicU64,
}

impl Interrupt {
    /// An interrupt that raises the given line.
    pub fn new(line: EventFd) -> Self {
        Self {
            line,
            status: AtomicU32::new(0),
            generation: Mutex::new(0),
            needs_reset: AtomicBool::new(false),
            raised: AtomicU64::new(0),
        }
    }

    /// The device has used buffers.
    pub fn used_buffers(&self) {
        self.raise(USED_BUFFER);
    }

    /// The device's configuration space has changed in a field that is read at once (§2.5): readers see a new
    /// generation.
    pub fn config_changed(&self) {
        self.change_config(|| true);
    }

    /// Changes the device's configuration space; `change` says whether it did. No reader sees the new contents
    /// with the old generation: whoever reads a field in pieces, a generation before and one after, notices
    /// (§2.5.1).
    pub fn change_config(&self, change: impl FnOnce() -> bool) {
        let mut generation = self.lock_generation();
        if change() {
            *generation = generation.wrapping_add(1);
            drop(generation);
            self.raise(CONFIG_CHANGE);
        }
    }

    fn lock_generation(&self) -> MutexGuard<'_, u32> {
        (self.generation.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// The device cannot go on before it is reset (§2.1.2, DEVICE_NEEDS_RESET). Says so once in the log.
    pub fn needs_reset(&self, device: &str, why: &dyn std::fmt::Display) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            log::warn!("{device} needs a reset by its driver: {why}");
            self.raise(CONFIG_CHANGE);
        }
    }

    /// How often the line was raised.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u32 {
        *self.lock_generation()
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::AcqRel);
        self.raised.fetch_add(1, Ordering::Relaxed);
        // The line is an eventfd: a full counter still raises it.
        let _ = self.line.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A generation that is read while the configuration changes is the new one, whenever the reader comes.
    #[test]
    fn a_generation_waits_for_the_change() {
        let interrupt = Interrupt::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let (reads, reading) = channel();
        let (seen, generation) = channel();
        std::thread::scope(|scope| {
            interrupt.change_config(|| {
                let interrupt = &interrupt;
                scope.spawn(move || {
                    reads.send(()).unwrap();
                    seen.send(interrupt.generation()).unwrap();
                });
                reading.recv().unwrap();
                (0..100).for_each(|_| std::thread::yield_now());
                assert!(generation.try_recv().is_err());
                true
            });
            assert_eq!(generation.recv().unwrap(), 1);
        });
        interrupt.change_config(|| false);
        assert_eq!((interrupt.generation(), interrupt.raised()), (1, 1));
    }
}
