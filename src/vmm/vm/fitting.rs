//! Whether a VM fits its host at all.

use super::error::Error;
use crate::config::VmConfig;
use kvmlet_sys::facts;
use std::ops::Deref;

/// A configuration with no more memory than this host has. A VM is built of nothing else: so that is asked once, on each
/// way to one, and before anything is made or noted for it.
#[derive(Debug)]
pub struct FittingConfig(VmConfig);

impl FittingConfig {
    /// Could the host run it, if it had the host for itself?
    ///
    /// # Errors
    /// [`Error::HostMemory`] when it has more memory than the host.
    pub fn new(config: VmConfig) -> Result<Self, Error> {
        let (memory, host_bytes) = (config.memory, facts::total_memory_bytes());
        match memory.bytes() > host_bytes {
            true => Err(Error::HostMemory { memory, host_bytes }),
            false => Ok(Self(config)),
        }
    }

    pub(super) fn into_inner(self) -> VmConfig {
        self.0
    }
}

impl Deref for FittingConfig {
    type Target = VmConfig;

    fn deref(&self) -> &VmConfig {
        &self.0
    }
}
