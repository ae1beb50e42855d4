//! The far end of a queue pair, as the control queue and the pair's worker share it.

use super::port::Port;
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::lock;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the control queue and a queue pair's worker share.
pub(super) struct Lane {
    pub port: Arc<dyn Port>,
    /// Held while frames are received, so that none comes after the driver was told that none will.
    active: Mutex<bool>,
    /// Tells the worker of a change.
    pub changed: Event,
}

impl Lane {
    pub fn new(port: Arc<dyn Port>) -> io::Result<Self> {
        Ok(Self {
            port,
            active: Mutex::new(false),
            changed: Event::new()?,
        })
    }

    pub fn active(&self) -> MutexGuard<'_, bool> {
        lock(&self.active)
    }

    pub fn is_active(&self) -> bool {
        *self.active()
    }

    pub fn set_active(&self, active: bool) -> io::Result<()> {
        let mut current = self.active();
        if *current != active {
            self.port.attach(active)?;
            *current = active;
            self.changed.signal();
        }
        Ok(())
    }
}
