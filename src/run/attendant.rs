//! What whoever attends a VM wants to know of it.

use crate::upstream::Upstream;
use crate::{ControlListener, Error, StatsSink};
use kvmlet_control::Channel;
use kvmlet_host::net::Network;
use kvmlet_spec::{Dialect, Outcome, VmConfig};
use kvmlet_vmm::snapshot::Saved;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// What whoever attends a VM wants to know of it, and who else does.
#[non_exhaustive]
pub struct Attendant {
    /// Takes statistics, when the VM ends and on SIGUSR1.
    pub stats: Option<StatsSink>,
    /// When this process began to run, which is what times of the start are counted from.
    pub started: Instant,
    /// Is told once what there is, before the VM is built: its interfaces are there.
    pub announce: fn(&VmConfig, &[Network]),
    /// Where another program is told what the VM tells, and asks for what a VM can be asked. It has started this process,
    /// and the VM ends when it is gone.
    pub upstream: Option<Channel>,
    /// The VM does not end when that program is gone.
    pub outlives: bool,
    /// Is written a line to when the VM runs, and closed; closed without one when it has not come to that.
    pub ready: Option<OwnedFd>,
    /// Where programs of the same user connect that want to know of the VM or ask for something
    /// ([`kvmlet_control::Connection`]).
    pub control: Option<ControlListener>,
    /// What the VM goes on from, instead of booting.
    pub saved: Option<Saved>,
    /// The guest runs when that is asked for, and not before.
    pub paused: bool,
    /// Its interfaces, where the process that this one was forked from holds them ([`HeldNetworks`](crate::HeldNetworks)).
    pub networks: Option<Vec<Network>>,
    /// How settings are named to whoever reads what helps.
    pub dialect: Dialect,
}

impl Attendant {
    /// Tells whoever wants to know that nothing comes of it.
    pub(crate) fn refuse(self, error: Error) -> Result<Outcome, Error> {
        let refused = Err(error);
        if let Some(channel) = self.upstream {
            Upstream::new(channel, self.outlives).tell_end(&refused, self.dialect);
        }
        refused
    }
}

impl Default for Attendant {
    fn default() -> Self {
        Self {
            stats: None,
            started: Instant::now(),
            announce: |_, _| (),
            upstream: None,
            outlives: false,
            ready: None,
            control: None,
            saved: None,
            paused: false,
            networks: None,
            dialect: Dialect::File,
        }
    }
}
