//! The workers of a VM's devices as a whole: all stand still together, and all end together.

use super::slots::SharedTransport;
use crate::devices::virtio::{PATIENCE, Patience, Session, TransportState};
use kvmlet_sys::thread::lock;
use std::sync::OnceLock;
use std::time::Instant;

/// How far devices have come that rest.
pub(super) fn states(transports: &[SharedTransport]) -> Vec<TransportState> {
    let states = transports.iter().map(|device| lock(device).state());
    states.collect()
}

/// The devices that have workers.
pub(super) struct Workers {
    transports: Vec<SharedTransport>,
    /// When all were told to end.
    called_off: OnceLock<Instant>,
}

impl Workers {
    pub fn new(transports: Vec<SharedTransport>) -> Self {
        Self {
            transports,
            called_off: OnceLock::new(),
        }
    }

    pub fn transports(&self) -> &[SharedTransport] {
        &self.transports
    }

    /// Has all stand still, and returns when they do; or names one that did not in time, when none does any more. No
    /// vCPU runs.
    pub fn sleep(&self, patience: Patience) -> Result<(), String> {
        self.pause_until(|session| session.is_still(patience))
    }

    /// Has all bring to its end what is in flight, and rest; or names one that did not in time. No vCPU runs.
    pub fn rest(&self, deadline: Instant) -> Result<(), String> {
        self.pause_until(|session| session.rest(deadline))
    }

    /// Has all stand still, which are told so at once, and then one after the other come to that.
    fn pause_until(&self, has_come: impl Fn(&mut Session) -> bool) -> Result<(), String> {
        self.transports
            .iter()
            .for_each(|device| lock(device).session().pause());
        let awake = (self.transports.iter()).find(|device| !has_come(lock(device).session()));
        let Some(awake) = awake else {
            return Ok(());
        };
        self.wake();
        Err(lock(awake).session().device().name().to_owned())
    }

    /// Has all go on.
    pub fn wake(&self) {
        self.transports
            .iter()
            .for_each(|device| lock(device).session().wake());
    }

    /// Ends all, for good, and returns when they have, or [`PATIENCE`] after the first call. What the host's kernel works
    /// on by then may go on: whoever stops a VM and then drops it waits for that once.
    pub fn end(&self) {
        let called_off = *self.called_off.get_or_init(|| {
            self.transports
                .iter()
                .for_each(|device| lock(device).session().call_off());
            Instant::now()
        });
        let deadline = called_off + PATIENCE;
        for device in &self.transports {
            lock(device).session().has_let_go(deadline);
        }
    }
}
