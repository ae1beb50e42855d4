//! What is written is read, and what was not written is refused.

use super::sections::{head, note, with_note};
use super::*;
use crate::arch::x86_64::cpuid::Leaf;
use crate::arch::x86_64::msr::Msr;
use crate::devices::ioapic::IoapicState;
use crate::devices::pci::{FunctionState, VectorState};
use crate::devices::serial::SerialState;
use crate::devices::virtio::balloon::BalloonState;
use crate::devices::virtio::net::NetState;
use crate::devices::virtio::rate_limiter::Level;
use crate::devices::virtio::{
    DeviceState, QueueRecord, QueueState, Selection, SessionState, TransportState,
};
use crate::disk::Stamp;
use crate::memory::{Backing, GuestRam};
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use vm_memory::{Bytes, GuestAddress};

mod difference;
mod sink;

const MIB: usize = 1 << 20;

fn device(device: DeviceState) -> TransportState {
    let progress = QueueState {
        next_avail: 7,
        next_used: 7,
        signalled: 6,
    };
    let queue = QueueRecord {
        size: 128,
        ready: true,
        descriptors: 0x1000,
        driver: 0x2000,
        device: 0x3000,
        progress: Some(progress),
    };
    let level = Level {
        balance: -5_000_000_000,
        once: 3,
    };
    TransportState {
        selection: Selection {
            device_features: 1,
            driver_features: 1,
            queue: 2,
        },
        interrupt_status: 1,
        session: SessionState {
            device_type: 1,
            status: 15,
            needs_reset: false,
            driver_features: 1 << 32 | 1 << 29,
            generation: 3,
            queues: vec![queue, QueueRecord::default()],
            device: Some(device),
            levels: vec![[Some(level), None]],
        },
        function: None,
    }
}

fn vcpu(number: u8) -> VcpuState {
    let mut vcpu = VcpuState {
        number,
        cpuid: vec![Leaf {
            function: 1,
            eax: 2,
            is_indexed: true,
            ..Leaf::default()
        }],
        mp_state: 3,
        regs: Default::default(),
        sregs: Default::default(),
        xsave: vec![7; 4096],
        xcrs: Default::default(),
        debugregs: Default::default(),
        lapic: Default::default(),
        msrs: vec![Msr {
            index: 0x10,
            value: u64::MAX,
        }],
        read_at: 1 << 60,
        events: Default::default(),
        tsc_khz: 2_300_000,
    };
    (vcpu.regs.rip, vcpu.sregs.cr3, vcpu.events.flags) = (0x10_0000, 0x5000, 0xd);
    vcpu.lapic.regs[0x20] = -1;
    vcpu
}

fn state(memory_bytes: u64) -> VmState {
    let disk = DiskRecord {
        id: b"data".to_vec(),
        bytes: 1 << 30,
        queues: 1,
        stamp: Some(Stamp {
            device: 1,
            inode: 2,
            changed: -3,
        }),
        ..DiskRecord::default()
    };
    let net = NetState {
        pairs: 1,
        offloads: 3,
        frames: vec![Some(vec![1, 2, 3]), None],
    };
    let balloon = BalloonState {
        actual_pages: 5,
        held: Some(4),
    };
    let mut clock = kvm_bindings::kvm_clock_data::default();
    (clock.clock, clock.flags) = (5, 0xe);
    VmState {
        id: [3; 16],
        base: None,
        machine: MachineState {
            vcpus: 2,
            memory_bytes,
            rng: true,
            disks: vec![disk],
            nets: vec![NetRecord {
                mac: [2, 0, 0, 0, 0, 1],
                mtu: Some(1500),
                pairs: 1,
            }],
            balloon: Some(BalloonRecord::default()),
            vsock: Some(3),
            ..MachineState::default()
        },
        clock,
        vcpus: vec![vcpu(0), vcpu(1)],
        ioapic: IoapicState {
            id: 1 << 24,
            selected: 0x10,
            table: [1 << 16; 24],
        },
        serial: SerialState {
            registers: [1, 2, 3, 4, 5, 6, 7, 8, 9],
            received: b"x".to_vec(),
        },
        exit_code: 42,
        generation: 0xf7,
        pci: None,
        devices: vec![
            device(DeviceState::Rng),
            device(DeviceState::Net(net)),
            device(DeviceState::Balloon(balloon)),
            device(DeviceState::Vsock),
        ],
    }
}

/// The same, whose devices are functions.
fn on_a_bus(memory_bytes: u64) -> VmState {
    let mut state = state(memory_bytes);
    state.pci = Some(1 << 31 | 0x800);
    for device in &mut state.devices {
        let mut vector = VectorState::default();
        (vector.address, vector.data, vector.pending) = (0xfee0_0000, 0x31, true);
        device.function = Some(FunctionState {
            config: vec![7; 256],
            table: vec![vector; 2],
            vectors: vec![0xffff, 1],
        });
    }
    state
}

#[test]
fn what_is_encoded_is_decoded() {
    for state in [state(64 << 20), on_a_bus(64 << 20)] {
        let bytes = encode(&state);
        assert_eq!(decode(&bytes).unwrap(), state);
        assert_eq!(head(bytes.first_chunk().unwrap()).unwrap(), bytes.len());
    }
}

/// Wherever a bit is turned or the end is, it is noticed: nothing is read as something else.
#[test]
fn no_bit_is_turned_unnoticed() {
    let bytes = encode(&on_a_bus(64 << 20));
    for place in 0..bytes.len() {
        let mut other = bytes.clone();
        other[place] ^= 1 << (place % 8);
        assert!(decode(&other).is_err(), "{place}");
    }
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_note_is_replaced_and_nothing_else() {
    let state = state(64 << 20);
    let bytes = encode(&state);
    assert_eq!(note(&bytes).unwrap(), None);
    let first = with_note(&bytes, b"first").unwrap();
    let second = with_note(&first, b"second one").unwrap();
    assert_eq!(note(&first).unwrap().unwrap(), b"first");
    assert_eq!(note(&second).unwrap().unwrap(), b"second one");
    assert_eq!(decode(&second).unwrap(), state);
    assert_eq!(second.len(), bytes.len() + 12 + 10);
    let large = vec![0; MEMORY_START as usize];
    assert!(matches!(with_note(&bytes, &large), Err(Fault::Length)));
    assert!(with_note(&bytes[..100], b"x").is_err());
}

/// With a section in front of the last one.
fn with_section(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = encode(&state(64 << 20));
    let last = bytes.split_off(bytes.len() - 13);
    let head = [kind.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
    let checksum = crc32fast::hash(&[&head, content].concat());
    bytes.extend(head);
    bytes.extend(checksum.to_le_bytes());
    bytes.extend(content);
    bytes.extend(last);
    let length = bytes.len() as u32;
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn what_is_not_known_is_refused_by_its_number_or_skipped() {
    let fault = |kind, content: &[u8]| decode(&with_section(kind, content)).map(drop);
    assert!(fault(1 << 31 | 5, b"later").is_ok());
    assert!(matches!(fault(77, b""), Err(Fault::Unknown(77))));
    let said = fault(77, b"").unwrap_err().to_string();
    assert!(said.contains("77"), "{said}");
    // A second one, of what there is one, and one that makes no sense.
    assert!(matches!(fault(6, &[1]), Err(Fault::Section(6))));
    assert!(matches!(fault(7, &[1]), Err(Fault::Section(7))));
    assert!(matches!(fault(11, &[1]), Err(Fault::Section(11))));
    let mut bytes = encode(&state(64 << 20));
    bytes[8] = 9;
    assert!(matches!(decode(&bytes), Err(Fault::Version(9))));
    let mut fewer = state(64 << 20);
    fewer.vcpus.pop();
    assert!(decode(&encode(&fewer)).is_err());
}

proptest! {
    /// Sections whose checksums are right, with anything in them.
    #[test]
    fn nothing_makes_it_panic(kind in 0u32..13, content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&with_section(kind, &content));
    }

    #[test]
    fn levels_and_queues_come_back(balance in any::<i128>(), next in any::<u16>(), frame in prop::collection::vec(any::<u8>(), 0..99)) {
        let mut state = state(2 << 20);
        let session = &mut state.devices[1].session;
        session.levels[0][0] = Some(Level { balance, once: 1 });
        session.queues[1].progress = Some(QueueState { next_avail: next, next_used: next, signalled: next });
        session.device = Some(DeviceState::Net(NetState { pairs: 2, offloads: 0, frames: vec![Some(frame)] }));
        prop_assert_eq!(decode(&encode(&state)).unwrap(), state);
    }
}

/// RAM with something here and there, in two regions, of which the first is no whole number of blocks.
fn ram() -> (GuestRam, Vec<(GuestAddress, usize)>) {
    let ranges = vec![
        (GuestAddress(0), 5 * MIB / 2),
        (GuestAddress(1 << 32), 3 * MIB / 2),
    ];
    let ram = GuestRam::allocate(&ranges, Backing::default()).unwrap();
    for (place, value) in [(8, 1u64), (5 * MIB as u64 / 2 - 8, 2), ((1 << 32) + 8, 3)] {
        ram.write_obj(value, GuestAddress(place)).unwrap();
    }
    (ram, ranges)
}

/// As it is told.
fn told(ram: &GuestRam) -> Vec<u8> {
    let (mut part, mut told) = (0..ram.bytes(), Vec::new());
    while !part.is_empty() {
        let mut first = part.start..part.end.min(part.start + ram.rest_of_region(part.start));
        put_unless_zero(ram, &mut first, &mut told).unwrap();
        part.start = first.start;
    }
    put_rest(&encode(&state(ram.bytes())), ram.bytes(), &mut told);
    told
}

fn written(place: &Path, ram: &GuestRam) -> File {
    let file = File::create_new(place).unwrap();
    let most = most_bytes(crate::config::Memory::from_bytes(ram.bytes()));
    let length = Sink::new(&file, most).fill(&told(ram)[..]).unwrap();
    assert_eq!((length, file.metadata().unwrap().len()), (most, most));
    file
}

#[test]
fn a_file_has_what_is_told_and_holes() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("saved");
    let (ram, ranges) = ram();
    let file = written(&path, &ram);
    assert!(file.metadata().unwrap().blocks() * 512 < MIB as u64);
    let saved = Saved::open(&path).unwrap();
    assert_eq!(saved.state, state(ram.bytes()));
    saved.verify().unwrap();
    let again = GuestRam::of_file(&ranges, &saved.memory, MEMORY_START).unwrap();
    let value = |ram: &GuestRam, place| ram.read_obj::<u64>(GuestAddress(place)).unwrap();
    let values = [8, 5 * MIB as u64 / 2 - 8, (1 << 32) + 8, 16].map(|place| value(&again, place));
    assert_eq!(values, [1, 2, 3, 0]);
    // What one changes is nothing to another, nor to the file.
    let other = GuestRam::of_file(&ranges, &saved.memory, MEMORY_START).unwrap();
    again.write_obj(9u64, GuestAddress(8)).unwrap();
    assert_eq!((value(&again, 8), value(&other, 8)), (9, 1));
    saved.verify().unwrap();
    // The host would find the file's old content there again.
    assert_eq!(again.give_back(GuestAddress(0), 8192).unwrap(), 0);
    assert_eq!(value(&again, 8), 9);
}

#[test]
fn a_file_that_was_changed_or_cut_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("saved");
    let (ram, _) = ram();
    let file = written(&path, &ram);
    let length = file.metadata().unwrap().len();
    let fault = || Saved::open(&path).map(drop).map_err(|error| error.fault);
    for shorter in [0, 10, 100, MEMORY_START, length - 1] {
        file.set_len(shorter).unwrap();
        assert!(matches!(fault(), Err(Fault::Short)), "{shorter}");
        std::fs::remove_file(&path).unwrap();
        written(&path, &ram);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(shorter).unwrap();
        assert!(fault().is_err(), "{shorter}");
    }
    std::fs::remove_file(&path).unwrap();
    let file = written(&path, &ram);
    file.set_len(length + 1).unwrap();
    assert!(matches!(fault(), Err(Fault::Length)));
    file.set_len(length).unwrap();
    fault().unwrap();
    // Checksums of memory, and the mark.
    for at in [MEMORY_START + ram.bytes(), length - 1] {
        let mut byte = [0];
        let reader = File::open(&path).unwrap();
        reader.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        assert!(matches!(fault(), Err(Fault::End)), "{at}");
        file.write_all_at(&byte, at).unwrap();
    }
    // Memory is looked at by who asks for that.
    file.write_all_at(&[1], MEMORY_START + 2 * MIB as u64)
        .unwrap();
    let saved = Saved::open(&path).unwrap();
    let fault = saved.verify().unwrap_err().fault;
    let block = MEMORY_START + 2 * MIB as u64;
    assert!(matches!(fault, Fault::Memory(at) if at == block), "{fault}");
    assert!(Saved::open(place.path()).is_err());
    assert!(Saved::open(&place.path().join("none")).is_err());
}
