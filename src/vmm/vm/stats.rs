//! What a VM has done so far, in one piece.

use super::vcpu::VcpuStats;
use crate::devices::virtio::balloon::BalloonStats;
use crate::devices::virtio::block::BlockStats;
use crate::devices::virtio::net::NetStats;
use crate::devices::virtio::rng::RngStats;
use serde::Serialize;

/// A snapshot of everything that is counted, taken while the VM runs or after it has ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct VmStats {
    /// Exits to user space by kind, for each vCPU.
    pub vcpus: Vec<VcpuStats>,
    /// For the entropy source, if there is one.
    pub entropy: Option<RngStats>,
    /// For each disk.
    pub disks: Vec<BlockStats>,
    /// For each network interface.
    pub interfaces: Vec<NetStats>,
    /// Guest RAM.
    pub memory: MemoryStats,
    /// For the balloon, if there is one.
    pub balloon: Option<BalloonStats>,
}

/// What guest RAM costs the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What the guest was promised.
    pub bytes: u64,
    /// How much of it is in the host's memory; none if the host does not tell.
    pub resident_bytes: Option<u64>,
}
