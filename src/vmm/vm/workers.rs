//! The workers of a VM's devices as a whole: all stand still together, and all end together.

use super::devices::Transport;
use kvmlet_sys::thread::lock;
use std::time::Instant;

/// The devices that have workers.
pub(super) struct Workers(Vec<Transport>);

impl Workers {
    pub fn new(transports: Vec<Transport>) -> Self {
        Self(transports)
    }

    pub fn transports(&self) -> &[Transport] {
        &self.0
    }

    /// Has all stand still, and returns when they do; or names one that did not in time, when none does any more. No
    /// vCPU runs.
    pub fn sleep(&self, deadline: Instant) -> Result<(), String> {
        self.0.iter().for_each(|device| lock(device).pause());
        let awake = (self.0.iter()).find(|device| !lock(device).is_still(deadline));
        let Some(awake) = awake else {
            return Ok(());
        };
        self.wake();
        Err(lock(awake).device().name().to_owned())
    }

    /// Has all go on.
    pub fn wake(&self) {
        self.0.iter().for_each(|device| lock(device).resume());
    }

    /// Ends all, for good, and returns when they have, or then. What the host's kernel works on by then may go on.
    pub fn end(&self, deadline: Instant) {
        self.0.iter().for_each(|device| lock(device).call_off());
        for device in &self.0 {
            lock(device).has_let_go(deadline);
        }
    }
}
