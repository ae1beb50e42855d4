//! Snapshots that say anything, with checksums that are right: what is read holds no more than the file has, is what is
//! written again, and a device that goes on as it says reaches no further than one whose driver lies.
#![no_main]

mod memory;

use kvmlet_sys::event::Event;
use kvmlet_vmm::devices::ioapic::IoapicState;
use kvmlet_vmm::devices::serial::SerialState;
use kvmlet_vmm::devices::pci::{Message, MessageLine};
use kvmlet_vmm::devices::virtio::rng::RngSpec;
use kvmlet_vmm::devices::virtio::{
    DeviceSpec, MmioTransport, PciTransport, Transport, TransportState,
};
use kvmlet_vmm::memory::{Backing, GuestRam};
use kvmlet_vmm::snapshot::{MachineState, VmState, decode, encode};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, Instant};
use vm_memory::GuestAddress;

/// No input makes it hold more than this many times its length, and this much.
const TIMES: usize = 100;
const MEMORY: usize = 64 << 10;
/// What nothing takes, even on a machine where others work.
const NEVER: Duration = Duration::from_secs(5);

/// The section at the end: kind, length, checksum, a byte.
const END: usize = 13;

/// A machine with nothing in it.
fn nothing() -> VmState {
    VmState {
        id: Default::default(),
        base: None,
        machine: MachineState::default(),
        clock: Default::default(),
        vcpus: Vec::new(),
        ioapic: IoapicState {
            id: 0,
            selected: 0,
            table: [1 << 16; 24],
        },
        serial: SerialState::default(),
        exit_code: 0,
        generation: 0,
        pci: None,
        devices: Vec::new(),
    }
}

/// The first part of a file, with sections of that content among others: kind, length (2 bytes), content, and again.
fn file(mut input: &[u8]) -> Vec<u8> {
    let mut bytes = encode(&nothing());
    let end = bytes.split_off(bytes.len() - END);
    while let Some(([kind, low, high], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (content, behind) = rest.split_at(length);
        // Devices most often: there can be several, and most of it is about them.
        let kind = if kind & 1 == 0 {
            7
        } else {
            u32::from(kind >> 1)
        };
        let head = [kind.to_le_bytes(), (length as u32).to_le_bytes()].concat();
        bytes.extend(&head);
        bytes.extend(crc32fast::hash(&[&head, content].concat()).to_le_bytes());
        bytes.extend(content);
        input = behind;
    }
    bytes.extend(end);
    let length = bytes.len() as u32;
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// An entropy source goes on as a device of the file, if it can.
fn go_on(device: &TransportState) {
    let ram = GuestRam::allocate(&[(GuestAddress(0), 1 << 20)], Backing::default());
    let (rng, _) = RngSpec::default().build().expect("a device");
    let (rng, ram) = (Box::new(rng), ram.expect("memory"));
    match device.function {
        Some(_) => {
            let lines = (0..PciTransport::lines(&*rng)).map(|_| Box::new(Nowhere) as _);
            let transport = PciTransport::new(rng, ram, lines.collect(), 0xe000_0000);
            take_up(device, transport.expect("events"));
        }
        None => {
            let line = Event::new().expect("an event");
            let transport = MmioTransport::new(rng, ram, line);
            take_up(device, transport.expect("events"));
        }
    }
}

/// Messages that nobody gets.
struct Nowhere;

impl MessageLine for Nowhere {
    fn route(&self, _message: Option<Message>) {}

    fn signal(&self) {}
}

fn take_up(device: &TransportState, mut transport: impl Transport) {
    if transport.take_up(device).is_ok() {
        transport.session().wake();
        assert!(transport.session().rest(Instant::now() + NEVER));
        let _ = transport.state();
    }
}

fuzz_target!(|input: &[u8]| {
    memory::begin();
    for bytes in [input.to_vec(), file(input)] {
        let Ok(state) = decode(&bytes) else {
            continue;
        };
        memory::expect_at_most(MEMORY + TIMES * bytes.len());
        assert!(decode(&encode(&state)).as_ref().ok() == Some(&state));
        state.devices.iter().for_each(go_on);
    }
});
