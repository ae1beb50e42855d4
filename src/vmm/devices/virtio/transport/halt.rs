//! The end of a device's work. Its workers may be in the middle of something that only the host's kernel can end; a
//! vCPU waits for that a moment, and then its driver does, if it cares to: the device has been reset when the status
//! reads as zero (virtio 1.2 §2.4.2), and takes nothing from a driver before.

use super::session::{Activity, Session};
use super::setup::QueueSetup;
use std::time::{Duration, Instant};

/// How long a vCPU waits for a device to stop, and who else waits for the vCPU.
const PATIENCE: Duration = Duration::from_millis(50);

impl Session {
    /// The device works on no queue any more, soon.
    pub(super) fn stop(&mut self) {
        self.disconnect();
        if matches!(self.activity, Activity::Active | Activity::Asleep(_)) {
            self.call_off();
            self.activity = Activity::Halting;
            if !self.settle(PATIENCE) {
                let what = "the host has not ended its requests, and its reset waits for them";
                self.interrupt.complain(what);
            }
        }
        if matches!(self.activity, Activity::Idle) {
            self.retire_queues();
        }
    }

    /// The driver's wish. Whatever the host is at, the driver is not called any more.
    pub(super) fn reset(&mut self) {
        // Before the workers let go: a vCPU that waits for that must not hold up one that only looks.
        self.interrupt.reset();
        self.stop();
        (self.status, self.driver_features) = (0, 0);
        self.interrupt.reset();
        self.queues.iter_mut().for_each(QueueSetup::reset);
    }

    /// The driver has reset the device, which cannot begin anew yet.
    pub(super) fn is_resetting(&self) -> bool {
        self.is_halting() && self.status == 0
    }

    fn is_halting(&self) -> bool {
        matches!(self.activity, Activity::Halting)
    }

    /// Notices that the workers have let go, if they have.
    pub(super) fn look_after_halt(&mut self) {
        if self.is_halting() && self.settle(Duration::ZERO) {
            if self.status == 0 {
                // What the device did on its way is nothing to the next driver.
                self.interrupt.reset();
                self.queues.iter_mut().for_each(QueueSetup::reset);
            }
            self.retire_queues();
        }
    }

    fn settle(&mut self, patience: Duration) -> bool {
        let settled = self.has_let_go(Instant::now() + patience);
        if settled {
            drop(self.device.halt());
            self.device.reset();
            self.activity = Activity::Idle;
        }
        settled
    }

    fn retire_queues(&mut self) {
        for queue in &mut self.queues {
            queue.ready &= !std::mem::take(&mut queue.retires);
        }
    }
}
