//! Under which conditions starts are measured as well.

use super::contestant::{Contestant, with_network, with_share};
use super::workshop::Programs;
use kvmlet_host::net::set_up;
use kvmlet_spec::CpuQuota;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What is asked for beside the usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// All start once more while this many idle VMs run.
    pub beside: usize,
    /// Those who can do so start with a network and a published port, too.
    pub net: bool,
    /// And with this share of CPUs.
    pub cpu_quota: Option<CpuQuota>,
}

impl Conditions {
    /// Those who start as they ask.
    pub(super) fn contestants(&self, programs: &Programs) -> Vec<Box<dyn Contestant>> {
        let mut all = Vec::new();
        if self.net {
            all.extend(with_network(programs));
        }
        if let Some(quota) = self.cpu_quota {
            all.extend(with_share(programs, quota));
        }
        all
    }

    /// Prepares this thread, and returns what a reader of the result has to know.
    pub(super) fn prepare(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.net {
            warnings.push(
                "Only kvmlet starts with a network: other VMMs are given a tap that somebody else has made, OCI runtimes leave \
                 networks to others, and the engines start here without one."
                    .into(),
            );
            warnings.extend(own_network());
        }
        if self.cpu_quota.is_some() {
            warnings.push(
                "Only kvmlet, crun and runc start with a share of CPUs: other VMMs have none, and the engines hand it to \
                 these runtimes."
                    .into(),
            );
        }
        warnings
    }
}

/// Networks are made in a namespace of this thread's own, and not among the host's. Returns why not, if so.
fn own_network() -> Option<String> {
    // SAFETY: only this thread's network changes, and that of what it starts; no descriptors are shared or unshared.
    let own = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    let own = own
        .map_err(std::io::Error::from)
        .and_then(|()| set_up("lo"));
    own.err()
        .map(|error| format!("Networks are the host's: there is no namespace for them ({error})."))
}
