//! The parts of a VM's state as bytes.

use super::bytes::{Garbled, Record, record};
use super::state::{BalloonRecord, DiskRecord, MachineState, NetRecord, VcpuState};
use crate::arch::x86_64::cpuid::Leaf;
use crate::arch::x86_64::msr::Msr;
use crate::devices::ioapic::IoapicState;
use crate::devices::pci::{FunctionState, VectorState};
use crate::devices::serial::SerialState;
use crate::devices::virtio::balloon::BalloonState;
use crate::devices::virtio::block::BlockState;
use crate::devices::virtio::net::NetState;
use crate::devices::virtio::rate_limiter::Level;
use crate::devices::virtio::{
    DeviceState, QueueRecord, QueueState, Selection, SessionState, TransportState,
};
use crate::disk::Stamp;

record!(MachineState {
    vcpus,
    memory_bytes,
    rng,
    nested,
    pmu,
    disks,
    nets,
    balloon,
    vsock
});
record!(DiskRecord {
    id,
    bytes,
    read_only,
    writeback,
    queues,
    stamp
});
record!(Stamp {
    device,
    inode,
    changed
});
record!(NetRecord { mac, mtu, pairs });
record!(BalloonRecord {
    bytes,
    deflate_on_oom,
    reporting
});
record!(VcpuState {
    number,
    cpuid,
    mp_state,
    regs,
    sregs,
    xsave,
    xcrs,
    debugregs,
    lapic,
    msrs,
    read_at,
    events,
    tsc_khz
});
record!(Leaf {
    function,
    index,
    is_indexed,
    eax,
    ebx,
    ecx,
    edx
});
record!(Msr { index, value });
record!(IoapicState {
    id,
    selected,
    table
});
record!(SerialState {
    registers,
    received
});
record!(Selection {
    device_features,
    driver_features,
    queue
});
record!(FunctionState {
    config,
    table,
    vectors
});
record!(VectorState {
    address,
    data,
    masked,
    pending
});
record!(SessionState {
    device_type,
    status,
    needs_reset,
    driver_features,
    generation,
    queues,
    device,
    levels
});
record!(QueueRecord {
    size,
    ready,
    descriptors,
    driver,
    device,
    progress
});
record!(QueueState {
    next_avail,
    next_used,
    signalled
});
record!(Level { balance, once });
record!(BlockState { writeback });
record!(NetState {
    pairs,
    offloads,
    frames
});
record!(BalloonState { actual_pages, held });

/// Without its function, which has a section of its own: files of machines without a PCI bus are what they were.
impl Record for TransportState {
    fn put(&self, to: &mut Vec<u8>) {
        self.selection.put(to);
        self.interrupt_status.put(to);
        self.session.put(to);
    }

    fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
        Ok(Self {
            selection: Record::take(from)?,
            interrupt_status: Record::take(from)?,
            session: Record::take(from)?,
            function: None,
        })
    }
}

const RNG: u8 = 0;
const BLOCK: u8 = 1;
const NET: u8 = 2;
const BALLOON: u8 = 3;
const VSOCK: u8 = 4;

impl Record for DeviceState {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            DeviceState::Rng => RNG.put(to),
            DeviceState::Block(state) => {
                BLOCK.put(to);
                state.put(to);
            }
            DeviceState::Net(state) => {
                NET.put(to);
                state.put(to);
            }
            DeviceState::Balloon(state) => {
                BALLOON.put(to);
                state.put(to);
            }
            DeviceState::Vsock => VSOCK.put(to),
        }
    }

    fn take(from: &mut &[u8]) -> Result<Self, Garbled> {
        Ok(match u8::take(from)? {
            RNG => DeviceState::Rng,
            BLOCK => DeviceState::Block(Record::take(from)?),
            NET => DeviceState::Net(Record::take(from)?),
            BALLOON => DeviceState::Balloon(Record::take(from)?),
            VSOCK => DeviceState::Vsock,
            _ => return Err(Garbled),
        })
    }
}
