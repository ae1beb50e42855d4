//! What a VM consists of while it sleeps, beside its memory.

use crate::arch::x86_64::cpuid::Leaf;
use crate::arch::x86_64::msr::{Msr, TSC};
use crate::devices::ioapic::IoapicState;
use crate::devices::serial::SerialState;
use crate::devices::virtio::TransportState;
use crate::disk::Stamp;
use kvm_bindings::{
    kvm_clock_data, kvm_debugregs, kvm_lapic_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};

/// What a snapshot is told from all others by: random bytes.
pub type SnapshotId = [u8; 16];

/// A VM that sleeps.
#[derive(Clone, Debug, PartialEq)]
pub struct VmState {
    /// The snapshot's own; nobody has given it one if it is 0.
    pub id: SnapshotId,
    /// The one of which it is the difference, if it is one.
    pub base: Option<SnapshotId>,
    /// What it is made of.
    pub machine: MachineState,
    /// KVM's clock, and the host's time of day then.
    pub clock: kvm_clock_data,
    /// Its processors, in the order of their numbers.
    pub vcpus: Vec<VcpuState>,
    /// The I/O APIC.
    pub ioapic: IoapicState,
    /// The first serial port.
    pub serial: SerialState,
    /// The exit code that the guest has left for its end.
    pub exit_code: u8,
    /// The vector by which the guest's kernel hears of its next generation; 0 if it does not want to.
    pub generation: u8,
    /// What was last written as an address to its PCI bus, if it has one.
    pub pci: Option<u32>,
    /// Virtio devices, in the order of their addresses.
    pub devices: Vec<TransportState>,
}

impl VmState {
    /// What a VM that goes on from it calls the whole file: a difference is one with its base.
    pub fn whole_id(&self) -> SnapshotId {
        self.base.unwrap_or(self.id)
    }
}

/// What a machine has to be like for its guest to go on in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// How many processors.
    pub vcpus: u8,
    /// RAM, in bytes.
    pub memory_bytes: u64,
    /// It has an entropy source.
    pub rng: bool,
    /// The guest can have guests of its own.
    pub nested: bool,
    /// The guest has performance counters.
    pub pmu: bool,
    /// Its disks, in their order.
    pub disks: Vec<DiskRecord>,
    /// Its interfaces, in their order.
    pub nets: Vec<NetRecord>,
    /// Its balloon.
    pub balloon: Option<BalloonRecord>,
    /// Its address, if it can have sockets.
    pub vsock: Option<u32>,
}

/// A disk, without its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskRecord {
    /// By which the guest knows it.
    pub id: Vec<u8>,
    /// Its size.
    pub bytes: u64,
    /// The guest cannot change it.
    pub read_only: bool,
    /// Writes may stay in a cache.
    pub writeback: bool,
    /// Its queues.
    pub queues: u16,
    /// Which file it was, and when that was written last, where it is one.
    pub stamp: Option<Stamp>,
}

/// An interface, without what it is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetRecord {
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// What the guest was told of the longest packet.
    pub mtu: Option<u16>,
    /// Pairs of queues.
    pub pairs: u8,
}

/// A balloon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonRecord {
    /// How much it is to hold, in bytes.
    pub bytes: u64,
    /// The guest may take memory out of it.
    pub deflate_on_oom: bool,
    /// The guest tells which memory is free.
    pub reporting: bool,
}

/// A processor. The parts are KVM's structures.
#[derive(Clone, Debug, PartialEq)]
pub struct VcpuState {
    /// Its number, which is that of its local APIC.
    pub number: u8,
    /// What it answers to CPUID.
    pub cpuid: Vec<Leaf>,
    /// Runs, halts, or waits to be started (KVM_GET_MP_STATE).
    pub mp_state: u32,
    /// General registers.
    pub regs: kvm_regs,
    /// Segments, control registers, descriptor tables. Not SREGS2: what that adds, the page-directory pointers of 32-bit
    /// guests, is in their memory, too.
    pub sregs: kvm_sregs,
    /// The FPU and its extensions, as long as KVM_CAP_XSAVE2 says.
    pub xsave: Vec<u8>,
    /// Which of them are on.
    pub xcrs: kvm_xcrs,
    /// Debug registers.
    pub debugregs: kvm_debugregs,
    /// The local APIC.
    pub lapic: kvm_lapic_state,
    /// All model-specific registers of KVM's list that can be read.
    pub msrs: Vec<Msr>,
    /// The host's time of day when those were read, in nanoseconds since 1970.
    pub read_at: u64,
    /// Exceptions and interrupts on their way.
    pub events: kvm_vcpu_events,
    /// The frequency of its time-stamp counter; 0 where KVM does not tell.
    pub tsc_khz: u32,
}

impl VcpuState {
    /// What its time-stamp counter held.
    pub fn tsc(&self) -> Option<u64> {
        let tsc = self.msrs.iter().find(|msr| msr.index == TSC);
        tsc.map(|msr| msr.value)
    }
}
