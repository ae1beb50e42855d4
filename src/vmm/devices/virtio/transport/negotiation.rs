//! From a reset to a device that works (virtio 1.2 §3.1.1).

use super::selection::Selection;
use super::session::{Activity, Session};
use super::setup::QueueSetup;
use crate::devices::virtio::queue::QueueParts;
use crate::devices::virtio::{Activation, Virtqueue};

/// Feature bits that concern every device (§6).
const RING_INDIRECT_DESC: u64 = 1 << 28;
pub(super) const RING_EVENT_IDX: u64 = 1 << 29;
pub(in crate::devices::virtio) const VERSION_1: u64 = 1 << 32;
/// What a transport offers beside the features of its device.
pub const TRANSPORT_FEATURES: u64 = VERSION_1 | RING_INDIRECT_DESC | RING_EVENT_IDX;

// Device status bits (§2.1).
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
pub(super) const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;
/// All that a driver can set.
pub(super) const EVERY_STATUS: u32 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | FAILED;

impl Session {
    /// All that the driver can have.
    pub fn device_features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// The driver says which of them it wants, by halves of 32 bits; `half` counts from 0.
    pub fn accept_features(&mut self, half: u32, value: u32) {
        if self.status & (DRIVER | FEATURES_OK) != DRIVER {
            return;
        }
        let (value, low, high) = (
            u64::from(value),
            self.driver_features & 0xffff_ffff,
            self.driver_features >> 32,
        );
        match half {
            0 => self.driver_features = high << 32 | value,
            1 => self.driver_features = value << 32 | low,
            _ => {}
        }
    }

    /// What the driver wants of them.
    pub fn accepted_features(&self) -> u64 {
        self.driver_features
    }

    /// The selected half of what the driver can have.
    pub fn selected_device_features(&self) -> u32 {
        half(self.device_features(), self.selection.device_features)
    }

    /// The selected half of what the driver wants.
    pub fn selected_driver_features(&self) -> u32 {
        half(self.accepted_features(), self.selection.driver_features)
    }

    /// The driver says what it wants of the selected half.
    pub fn accept_selected_features(&mut self, value: u32) {
        self.accept_features(self.selection.driver_features, value);
    }

    /// Something of the selected queue; 0 where there is no such queue.
    pub fn of_selected_queue(&mut self, read: impl FnOnce(&QueueSetup) -> u32) -> u32 {
        self.queue(self.selection.queue).map_or(0, read)
    }

    /// The device status field (§2.1).
    pub fn status(&mut self) -> u32 {
        self.look_after_halt();
        match self.interrupt.is_broken() || self.is_resetting() {
            true => self.status | NEEDS_RESET,
            false => self.status,
        }
    }

    /// The driver writes the device status field. Zero is a reset, which has ended when the field reads as zero.
    ///
    /// §3.1.1: a driver adds bits in a fixed order, one or several at a time, and takes them away only by a
    /// reset. A bit that comes too early, or that the device does not grant, is not set.
    pub fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.selection = Selection::default();
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

    /// Fills `data` from the device configuration space.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    /// Takes a write to the device configuration space.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.status & DRIVER != 0 {
            self.device.write_config(offset, data);
        }
    }

    /// A queue, as its driver has set it up so far.
    pub fn queue(&mut self, number: u32) -> Option<&QueueSetup> {
        self.look_after_halt();
        self.queues.get(number as usize)
    }

    /// A queue that can be set up: between FEATURES_OK and DRIVER_OK, as long as it is not ready.
    pub fn queue_to_set_up(&mut self, number: u32) -> Option<&mut QueueSetup> {
        let accessible = self.status & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK;
        let queue = self.queues.get_mut(number as usize)?;
        (accessible && !queue.ready).then_some(queue)
    }

    /// The driver has set the queue up, or takes it away again. Of a device that works a driver does that when it is
    /// about to go, so the whole device stops, until it is reset.
    pub fn set_queue_ready(&mut self, number: u32, ready: bool) {
        let set_up = self.status & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK;
        let queue = self.queues.get_mut(number as usize);
        if self.status & DRIVER_OK != 0 && !ready {
            if let Some(queue) = queue {
                queue.retires = true;
            }
            self.stop();
        } else if let (true, Some(queue)) = (set_up, queue) {
            queue.ready = ready;
        }
    }

    /// The driver has filled a queue.
    pub fn notify(&self, number: u32) {
        if let Some(queue) = self.queues.get(number as usize) {
            queue.notify.signal();
        }
    }

    /// A subset of what was offered, and a driver that knows virtio 1 (§6.1: there is no legacy interface).
    fn features_are_valid(&self) -> bool {
        self.driver_features & !self.device_features() == 0 && self.driver_features & VERSION_1 != 0
    }

    fn activate(&mut self) {
        self.interrupt.begin();
        self.thaw();
        let event_idx = self.driver_features & RING_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (number, setup) in (0..).zip(&self.queues) {
            if !setup.ready {
                queues.push(None);
                continue;
            }
            let (Some(rings), Ok(notified)) = (setup.find(&self.memory), setup.notify.try_clone())
            else {
                return (self.interrupt).needs_reset(&"a queue was set up wrongly");
            };
            let parts = QueueParts {
                number,
                size_max: setup.size_max,
                event_idx,
                rings,
                interrupt: self.interrupt.clone(),
                notified,
            };
            queues.push(Some(Virtqueue::new(parts)));
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

    /// Has the doorbell be elsewhere after a change.
    pub fn move_doorbell(&mut self, change: impl FnOnce()) {
        self.disconnect();
        change();
        if matches!(self.activity, Activity::Active) {
            self.connect();
        }
    }

    pub(super) fn connect(&mut self) {
        let Some(doorbell) = &mut self.doorbell else {
            return;
        };
        for (number, queue) in (0u32..)
            .zip(&mut self.queues)
            .filter(|(_, queue)| queue.ready && !queue.connected)
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

fn half(value: u64, number: u32) -> u32 {
    match number {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}
