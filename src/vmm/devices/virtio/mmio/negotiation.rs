//! From a reset to a device that works (virtio 1.2 §3.1.1).

use super::{Activity, MmioTransport};
use crate::devices::virtio::{Activation, Virtqueue};

/// Feature bits of the transport's own (§6).
const RING_INDIRECT_DESC: u64 = 1 << 28;
const RING_EVENT_IDX: u64 = 1 << 29;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const TRANSPORT_FEATURES: u64 = VERSION_1 | RING_INDIRECT_DESC | RING_EVENT_IDX;

// Device status bits (§2.1).
pub(super) const ACKNOWLEDGE: u32 = 1;
pub(super) const DRIVER: u32 = 2;
pub(super) const DRIVER_OK: u32 = 4;
pub(super) const FEATURES_OK: u32 = 8;
pub(super) const NEEDS_RESET: u32 = 64;
pub(super) const FAILED: u32 = 128;

impl MmioTransport {
    pub(super) fn device_features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// §3.1.1: a driver adds bits in a fixed order, one or several at a time, and takes them away only by a
    /// reset. A bit that comes too early, or that the device does not grant, is not set.
    pub(super) fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        self.look_after_halt();
        if self.is_resetting() {
            return;
        }
        if self.status & !value != 0 || self.status & FAILED != 0 {
            return;
        }
        let mut before = 0;
        for bit in [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK] {
            let added = value & !self.status & bit != 0;
            if added && self.status == before && (bit != FEATURES_OK || self.features_are_valid()) {
                self.status |= bit;
                if bit == DRIVER_OK {
                    self.activate();
                }
            }
            before |= bit;
        }
        self.status |= value & FAILED;
    }

    /// A subset of what was offered, and a driver that knows virtio 1 (§6.1: there is no legacy interface).
    fn features_are_valid(&self) -> bool {
        self.driver_features & !self.device_features() == 0 && self.driver_features & VERSION_1 != 0
    }

    fn activate(&mut self) {
        self.interrupt.begin();
        let event_idx = self.driver_features & RING_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (number, setup) in (0..).zip(&self.queues) {
            if !setup.ready {
                queues.push(None);
                continue;
            }
            let (Some(queue), Ok(notified)) = (
                setup.build(&self.memory, event_idx),
                setup.notify.try_clone(),
            ) else {
                return (self.interrupt).needs_reset(&"a queue was set up wrongly");
            };
            let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
            queues.push(Some(Virtqueue::new(
                number, queue, memory, interrupt, notified,
            )));
        }
        let (features, interrupt) = (self.driver_features, self.interrupt.clone());
        self.activity = Activity::Active;
        match self.device.activate(Activation {
            features,
            queues,
            interrupt,
            state: None,
        }) {
            Ok(()) => self.connect(),
            Err(error) => {
                self.interrupt.needs_reset(&error);
                self.stop();
            }
        }
    }

    fn connect(&mut self) {
        let Some(doorbell) = &mut self.doorbell else {
            return;
        };
        for (number, queue) in (0u32..)
            .zip(&mut self.queues)
            .filter(|(_, queue)| queue.ready)
        {
            match doorbell.connect(number, &queue.notify) {
                Ok(()) => queue.connected = true,
                Err(error) => {
                    let what =
                        format_args!("notifications of queue {number} take the long way: {error}");
                    self.interrupt.complain(what);
                }
            }
        }
    }

    pub(super) fn disconnect(&mut self) {
        let Some(doorbell) = &mut self.doorbell else {
            return;
        };
        for (number, queue) in (0u32..).zip(&mut self.queues) {
            if std::mem::take(&mut queue.connected) {
                doorbell.disconnect(number, &queue.notify);
            }
        }
    }
}
