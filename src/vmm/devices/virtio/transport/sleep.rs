//! A device that sleeps: its queues and its state are in nobody's hands but the caller's, and nothing of it is in flight.

use super::session::{Activity, Session};
use crate::devices::virtio::{Activation, Halted};
use std::time::Instant;

impl Session {
    /// Has the device bring to its end what is in flight, and takes its queues and its state, at a chain boundary. Its
    /// driver stands still: no vCPU runs. False if it has not come to that by then: it goes on.
    pub fn sleep(&mut self, deadline: Instant) -> bool {
        self.look_after_halt();
        match self.activity {
            Activity::Active => {}
            Activity::Idle | Activity::Asleep(_) => return true,
            Activity::Halting => return false,
        }
        let workers = self.device.workers();
        workers.into_iter().for_each(|worker| worker.put_to_sleep());
        let mut workers = self.device.workers().into_iter();
        if !workers.all(|worker| worker.is_asleep(deadline)) {
            self.resume();
            return false;
        }
        self.activity = Activity::Asleep(self.device.halt());
        true
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
        let activation = Activation {
            features: self.driver_features,
            queues: halted.queues,
            interrupt: self.interrupt.clone(),
            state: Some(halted.state),
        };
        if let Err(error) = self.device.activate(activation) {
            self.interrupt.needs_reset(&error);
            self.stop();
        }
    }
}
