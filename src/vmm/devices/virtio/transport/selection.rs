//! Registers that stand for more than fits in them, and what their driver has them stand for.

use super::Session;
use super::setup::QueueSetup;

/// What a driver has selected (virtio 1.2 §4.1.4.3, §4.2.2). A reset selects nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The half of the device's features that is read; halves have 32 bits and count from 0.
    pub device_features: u32,
    /// The half of the driver's features that is written.
    pub driver_features: u32,
    /// The number of the queue that is set up.
    pub queue: u32,
}

impl Session {
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
}

fn half(value: u64, number: u32) -> u32 {
    match number {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}
