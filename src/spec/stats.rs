//! What a VM has done so far. A field that a later version adds is zero, or none, in what an earlier one has told.

use serde::{Deserialize, Serialize};

/// A snapshot of everything that is counted, taken while the VM runs or after it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
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
    /// For sockets between guest and host, if there can be some.
    pub vsock: Option<VsockStats>,
}

/// What a VM costs its host, as the host's kernel counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HostStats {
    /// CPU time of each vCPU's thread, in microseconds: the guest's, and what handling its exits takes.
    pub vcpu_cpu_us: Vec<u64>,
    /// CPU time of the other threads of the VM's process, which serve its devices.
    pub vmm_cpu_us: u64,
    /// CPU time of the supervisor.
    pub supervisor_cpu_us: u64,
    /// How much of the host's memory all processes of the VM use, guest RAM among it.
    pub resident_bytes: u64,
}

/// How often a vCPU came back to user space, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct VcpuStats {
    /// Reads of I/O ports.
    pub port_reads: u64,
    /// Writes to I/O ports.
    pub port_writes: u64,
    /// Reads of device memory.
    pub mmio_reads: u64,
    /// Writes to device memory.
    pub mmio_writes: u64,
    /// Times that the vCPU was called back by the VMM.
    pub kicks: u64,
}

impl VcpuStats {
    /// All of them together.
    pub fn exits(&self) -> u64 {
        let Self {
            port_reads,
            port_writes,
            mmio_reads,
            mmio_writes,
            kicks,
        } = self;
        port_reads + port_writes + mmio_reads + mmio_writes + kicks
    }
}

/// What guest RAM costs the host.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What the guest was promised.
    pub bytes: u64,
    /// How much of it is in the host's memory; none if the host does not tell.
    pub resident_bytes: Option<u64>,
}

/// What a disk has done so far, over all queues and across resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockStats {
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Discards that succeeded.
    pub discards: u64,
    /// Write-zeroes requests that succeeded.
    pub write_zeroes: u64,
    /// Bytes that the guest has read.
    pub read_bytes: u64,
    /// Bytes that the guest has written.
    pub written_bytes: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Times that a queue had to wait for the rate limit.
    pub throttled: u64,
    /// Time that queues stood waiting for it, added up, in microseconds.
    pub throttled_us: u64,
    /// Times that the driver notified the device; each may cost an exit.
    pub notifications: u64,
    /// CPU time that was spent looking for requests before sleeping for them, in microseconds.
    pub poll_us: u64,
    /// Times that the device interrupted the driver.
    pub interrupts: u64,
}

/// Counts of an interface since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NetStats {
    /// Towards the guest.
    pub receive: DirectionStats,
    /// From the guest.
    pub transmit: DirectionStats,
    /// Notifications by the driver.
    pub notifications: u64,
    /// CPU time that was spent looking for frames before sleeping for them, in microseconds.
    pub poll_us: u64,
    /// Interrupts to the driver.
    pub interrupts: u64,
}

/// Counts of one direction since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DirectionStats {
    /// Frames that came through. A TCP segment larger than the MTU is one.
    pub frames: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Frames that were too long for the guest's buffers, or that it had no buffers for in time.
    pub drops: u64,
    /// Frames that were malformed or that the other side refused.
    pub errors: u64,
    /// Times that the rate limit held frames back.
    pub throttled: u64,
    /// For how long it did, in microseconds.
    pub throttled_us: u64,
}

/// What an entropy source has given so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RngStats {
    /// Requests that were answered.
    pub requests: u64,
    /// Random bytes in the answers.
    pub bytes: u64,
    /// Notifications by the driver.
    pub notifications: u64,
    /// Interrupts to the driver.
    pub interrupts: u64,
    /// Times that requests had to wait: there is a limit to how many are answered in a second.
    pub throttled: u64,
}

/// What a socket device has done so far, across resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct VsockStats {
    /// Connections that are there now, with those that end.
    pub connections: u64,
    /// Packets from the guest that were refused, and connections that nobody wanted.
    pub refused: u64,
    /// Packets from the guest, of all kinds.
    pub packets_from_guest: u64,
    /// Data in them, in bytes.
    pub bytes_from_guest: u64,
    /// Packets to the guest, of all kinds.
    pub packets_to_guest: u64,
    /// Data in them, in bytes.
    pub bytes_to_guest: u64,
    /// Notifications by the driver.
    pub notifications: u64,
    /// Interrupts to the driver.
    pub interrupts: u64,
}

/// What a balloon holds and has done so far, across resets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BalloonStats {
    /// How much the host wants in the balloon.
    pub target_bytes: u64,
    /// How much is in it, as the guest says.
    pub actual_bytes: u64,
    /// What was put into the balloon and given back to the host, all together.
    pub inflated_bytes: u64,
    /// What the guest said that it took out again, all together.
    pub deflated_bytes: u64,
    /// What the guest reported as free and was given back, all together. The same page can be free often.
    pub reported_bytes: u64,
    /// Pages of the balloon that are not RAM, which drivers should not name.
    pub refused_pages: u64,
    /// What the guest has told last of its memory.
    pub guest: Option<GuestStatistics>,
    /// How long ago it did, in milliseconds.
    pub guest_age_ms: Option<u64>,
}

/// What a guest has told of its memory. A number that it left out is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct GuestStatistics {
    /// Memory that nobody uses, in bytes.
    pub free_bytes: Option<u64>,
    /// All memory that the guest's kernel manages, in bytes.
    pub total_bytes: Option<u64>,
    /// What could be had without swapping, in bytes: more than is free, since caches can shrink.
    pub available_bytes: Option<u64>,
    /// What is in caches of files, in bytes.
    pub cache_bytes: Option<u64>,
    /// Bytes read from swap since the guest's boot; so are all counts below.
    pub swapped_in_bytes: Option<u64>,
    /// Bytes written to swap.
    pub swapped_out_bytes: Option<u64>,
    /// Page faults that had to wait for a disk.
    pub major_faults: Option<u64>,
    /// Page faults; the kernel of Linux counts the major ones here too.
    pub minor_faults: Option<u64>,
    /// Huge pages that the guest reserved.
    pub huge_pages_reserved: Option<u64>,
    /// Huge pages that it failed to reserve.
    pub huge_pages_failed: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// Times that somebody had to wait for memory.
    pub allocation_stalls: Option<u64>,
    /// Bytes looked at for reclaim in the background.
    pub scanned_in_background_bytes: Option<u64>,
    /// Bytes looked at for reclaim by those who needed memory.
    pub scanned_directly_bytes: Option<u64>,
    /// Bytes reclaimed in the background.
    pub reclaimed_in_background_bytes: Option<u64>,
    /// Bytes reclaimed by those who needed memory.
    pub reclaimed_directly_bytes: Option<u64>,
}
