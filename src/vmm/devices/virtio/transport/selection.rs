//! Registers that stand for more than fits in them, and what their driver has them stand for.

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
