//! How a device calls its driver.

use crate::devices::Complaints;
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::lock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, io};

/// What is to signal an event instead of this process.
pub type Taker<'a> = &'a mut dyn FnMut(&Event) -> io::Result<()>;

/// How a transport tells a driver: by one line for all, or by a message for each queue.
pub trait Signal: Send + Sync {
    /// A queue has used buffers.
    fn used_buffers(&self, queue: u16);

    /// The device's configuration space has changed, or the device needs a reset.
    fn config_changed(&self);

    /// Nothing that was told before the driver's reset counts any more.
    fn reset(&self);

    /// Has somebody else tell the driver of used buffers of that queue, by the event that `take` is given, until the
    /// [reset](Self::reset). False if the driver is to be told in another way: nothing was given then.
    ///
    /// # Errors
    /// What `take` said.
    fn lend(&self, _queue: u16, _take: Taker<'_>) -> io::Result<bool> {
        Ok(false)
    }

    /// What was told before and is not acknowledged is told again: it may have been on its way. One call too many does no
    /// harm.
    fn again(&self) {}
}

/// What a device has to tell its driver. Shared by the transport, which knows [how](Signal), and the device's workers.
pub struct Interrupt {
    device: String,
    signal: Arc<dyn Signal>,
    /// Held while the driver is told of a change, so that none comes from a device that was just reset.
    generation: Mutex<u32>,
    /// Between the driver's DRIVER_OK and its reset: at any other time it must not be called (§2.1.2).
    driver_is_ready: AtomicBool,
    needs_reset: AtomicBool,
    raised: AtomicU64,
    complaints: Complaints,
}

impl Interrupt {
    /// The interrupt of the device of that name.
    pub fn new(device: impl Into<String>, signal: Arc<dyn Signal>) -> Self {
        Self {
            device: device.into(),
            signal,
            generation: Mutex::new(0),
            driver_is_ready: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            raised: AtomicU64::new(0),
            complaints: Complaints::new(),
        }
    }

    /// The device has used buffers of that queue.
    pub fn used_buffers(&self, queue: u16) {
        self.call(|signal| signal.used_buffers(queue));
    }

    /// Has somebody else tell the driver of used buffers of that queue; see [`Signal::lend`].
    pub(super) fn lend(&self, queue: u16, take: Taker<'_>) -> io::Result<bool> {
        self.signal.lend(queue, take)
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
            self.call(|signal| signal.config_changed());
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
            self.call(|signal| signal.config_changed());
        }
    }

    /// Logs what is wrong with the device, as far as its guest has not caused too many such lines already.
    pub fn complain(&self, what: impl fmt::Display) {
        self.complaints
            .warn(format_args!("{}: {what}", self.device));
    }

    /// How often the driver was told of something.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u32 {
        *self.lock_generation()
    }

    /// The driver has set DRIVER_OK: from now on it may be called.
    pub(super) fn begin(&self) {
        self.driver_is_ready.store(true, Ordering::Release);
    }

    pub(super) fn reset(&self) {
        let _in_turn = self.lock_generation();
        self.driver_is_ready.store(false, Ordering::Release);
        self.signal.reset();
        self.needs_reset.store(false, Ordering::Release);
    }

    /// The guest goes on, perhaps in another VM than that in which it was told.
    pub(super) fn again(&self) {
        self.signal.again();
    }

    /// Is as that of another was, whose driver knew that generation and is the same.
    pub(super) fn resume(&self, generation: u32, driver_is_ready: bool, needs_reset: bool) {
        *self.lock_generation() = generation;
        self.driver_is_ready
            .store(driver_is_ready, Ordering::Release);
        self.needs_reset.store(needs_reset, Ordering::Release);
    }

    /// A worker may still be on its way to its end when the driver has reset the device.
    fn call(&self, tell: impl FnOnce(&dyn Signal)) {
        if self.driver_is_ready.load(Ordering::Acquire) {
            self.raised.fetch_add(1, Ordering::Relaxed);
            tell(&*self.signal);
        }
    }
}

#[cfg(test)]
pub(super) mod silence {
    //! A driver that is not told anything.

    use super::Signal;

    pub struct Silence;

    impl Signal for Silence {
        fn used_buffers(&self, _queue: u16) {}

        fn config_changed(&self) {}

        fn reset(&self) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// A generation that is read while the configuration changes is the new one, whenever the reader comes.
    #[test]
    fn a_generation_waits_for_the_change() {
        let interrupt = Interrupt::new("test", Arc::new(super::silence::Silence));
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
