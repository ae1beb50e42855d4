//! What a VM runs in, beside what it is.

use crate::{Error, Outcome};
use kvmlet_host::net::Network;
use kvmlet_spec::VmConfig;
use kvmlet_sys::whole_file::WholeFile;
use std::time::Instant;

/// Tells of what has gone wrong beside a VM that goes on.
pub type Tell = fn(Error);

/// What a VM runs in.
#[derive(Debug)]
#[non_exhaustive]
pub struct Surroundings {
    /// Where statistics go, when the VM ends and on SIGUSR1.
    pub stats: Option<WholeFile>,
    /// When this process began to run, which is what times of the start are counted from.
    pub started: Instant,
    /// Is told once what there is, before the VM is built: its interfaces are there.
    pub announce: fn(&VmConfig, &[Network]),
    /// Is told of what has gone wrong beside a VM that goes on.
    pub tell: Tell,
    /// What the VM's process, if it has one of its own, does last; returns its exit code.
    pub conclude: fn(Result<Outcome, Error>) -> u8,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            stats: None,
            started: Instant::now(),
            announce: |_, _| (),
            tell: |error| log::error!("{error}"),
            conclude: |_| 0,
        }
    }
}
