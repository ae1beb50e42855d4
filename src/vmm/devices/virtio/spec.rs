//! What devices are made from.

use super::VirtioDevice;
use std::io;

/// All that a device needs of its configuration. It knows how to become the device, and nothing of the machine that it
/// is for: that takes any.
pub trait DeviceSpec {
    /// The device.
    type Device: VirtioDevice + 'static;
    /// What the outside holds of it.
    type Handle;
    /// Why it cannot be made.
    type Error;

    /// Makes the device.
    ///
    /// # Errors
    /// When the host cannot give what it needs.
    fn build(self) -> Result<(Self::Device, Self::Handle), Self::Error>;
}

/// The host gives no events for a device.
#[derive(Debug, thiserror::Error)]
#[error("the host cannot give {what}")]
pub struct NoEvents {
    /// What was asked for.
    pub what: &'static str,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl NoEvents {
    pub(super) fn of(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { what, source }
    }
}
