//! How a device calls its driver.

use crate::devices::Complaints;
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::lock;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// InterruptStatus bits (virtio 1.2 §4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// A device's interrupt line with the status that says why it was raised. Shared by the transport, which
/// reads and acknowledges, and the device's worker, which raises.
#[derive(Debug)]
pub struct Interrupt {
    device: String,
    line: Event,
    status: AtomicU32,
    /// Held while the driver is told of a change, so that none comes from a device that was just reset.
    generation: Mutex<u32>,
    /// Between the driver's DRIVER_OK and its reset: at any other time it must not be called (§2.1.2).
    driver_is_ready: AtomicBool,
    needs_reset: AtomicBool,
    raised: AtomicU64,
    complaints: Complaints,
}

impl Interrupt {
    /// The interrupt of the device of that name, which raises the given line.
    pub fn new(device: impl Into<String>, line: Event) -> Self {
        Self {
            device: device.into(),
            line,
            status: AtomicU32::new(0),
            generation: Mutex::new(0),
            driver_is_ready: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            raised: AtomicU64::new(0),
            complaints: Complaints::new(),
        }
    }

    /// The device has used buffers.
    pub fn used_buffers(&self) {
        self.call(USED_BUFFER);
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
            self.call(CONFIG_CHANGE);
        }
    }

    fn lock_generation(&self) -> MutexGuard<'_, u32> {
        lock(&self.generation)
    }

    /// The device cannot go on before it is reset (§2.1.2, DEVICE_NEEDS_RESET). Says so once in the log.
    pub fn needs_reset(&self, why: &dyn fmt::Display) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            self.complain(format_args!("a reset by the driver is needed: {why}"));
            let _in_turn = self.lock_generation();
            self.call(CONFIG_CHANGE);
        }
    }

    /// Logs what is wrong with the device, as far as its guest has not caused too many such lines already.
    pub fn complain(&self, what: impl fmt::Display) {
        self.complaints
            .warn(format_args!("{}: {what}", self.device));
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

    /// The driver has set DRIVER_OK: from now on it may be called.
    pub(super) fn begin(&self) {
        self.driver_is_ready.store(true, Ordering::Release);
    }

    pub(super) fn reset(&self) {
        let _in_turn = self.lock_generation();
        self.driver_is_ready.store(false, Ordering::Release);
        self.status.store(0, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
    }

    /// A worker may still be on its way to its end when the driver has reset the device.
    fn call(&self, why: u32) {
        if !self.driver_is_ready.load(Ordering::Acquire) {
            return;
        }
        self.status.fetch_or(why, Ordering::AcqRel);
        self.raised.fetch_add(1, Ordering::Relaxed);
        self.line.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A generation that is read while the configuration changes is the new one, whenever the reader comes.
    #[test]
    fn a_generation_waits_for_the_change() {
        let interrupt = Interrupt::new("test", Event::new().unwrap());
        interrupt.begin();
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
