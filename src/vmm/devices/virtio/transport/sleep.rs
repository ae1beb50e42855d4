//! A device that sleeps: its queues and its state are in nobody's hands but the caller's, and nothing of it is in flight.

use super::session::{Activity, Session};
use crate::devices::virtio::{Activation, Halted};
use std::time::Instant;

impl Session {
    /// Has the device bring to its end what is in flight, and takes its queues and its state, at a chain boundary. Its
    /// driver stands still: no vCPU runs. False if it has not come to that by then: it goes on.
    pub fn sleep(&mut self, deadline: Instant) -> bool {
        let rests = self.rest(deadline);
        if rests && matches!(self.activity, Activity::Active) {
            self.activity = Activity::Asleep(self.device.halt());
        }
        rests
    }

    /// Has the device bring to its end what is in flight, and look at nothing more, but keep its queues: it
    /// [goes on](Self::resume) with what only it has, as connections. Time stands still for its limits. False if it has not
    /// come to that by then: it goes on.
    pub fn rest(&mut self, deadline: Instant) -> bool {
        self.look_after_halt();
        match self.activity {
            Activity::Active => {}
            Activity::Idle | Activity::Asleep(_) => return true,
            Activity::Halting => return false,
        }
        let workers = self.device.workers();
        workers.into_iter().for_each(|worker| worker.put_to_sleep());
        let mut workers = self.device.workers().into_iter();
        let rests = workers.all(|worker| worker.is_asleep(deadline));
        match rests {
            true => self.freeze(),
            false => self.resume(),
        }
        rests
    }

    pub(super) fn freeze(&self) {
        let limiters = self.device.limiters().into_iter();
        limiters.for_each(|limiter| limiter.freeze());
    }

    pub(super) fn thaw(&self) {
        let limiters = self.device.limiters().into_iter();
        limiters.for_each(|limiter| limiter.thaw());
    }

    /// What a device that sleeps has given back.
    pub fn halted(&self) -> Option<&Halted> {
        match &self.activity {
            Activity::Asleep(halted) => Some(halted),
            _ => None,
        }
    }

    /// Has the device go on that [slept](Self::sleep).
    pub fn wake(&mut self) {
        // Of one that was taken up there are vCPUs by now that can be interrupted.
        self.interrupt.again();
        let halted = match std::mem::replace(&mut self.activity, Activity::Active) {
            Activity::Asleep(halted) => halted,
            other => {
                self.activity = other;
                return self.resume();
            }
        };
        // One that needs a reset was not served, and is not before it gets that.
        if self.interrupt.is_broken() {
            return;
        }
        self.thaw();
        let activation = Activation {
            features: self.driver_features,
            queues: halted.queues,
            interrupt: self.interrupt.clone(),
            state: Some(halted.state),
        };
        match self.device.activate(activation) {
            // Of one that took up what another left, no queue is connected yet.
            Ok(()) => self.connect(),
            Err(error) => {
                self.interrupt.needs_reset(&error);
                self.stop();
            }
        }
    }
}
