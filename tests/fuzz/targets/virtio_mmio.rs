//! The transport's registers from reset on: accesses of any width at any offset in any order, with the regular
//! set-up, step by step, among them. What a driver may rely on holds after each.
#![no_main]

mod driver;

use driver::{Manners, devices, ear, ram, set_up};
use kvmlet_sys::event::Event;
use kvmlet_vmm::devices::Device;
use kvmlet_vmm::devices::virtio::{MmioTransport, VirtioDevice};
use libfuzzer_sys::fuzz_target;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// What no reset takes, even on a machine where others work.
const NEVER: Duration = Duration::from_secs(5);

const QUEUE_READY: u64 = 0x44;
const STATUS: u64 = 0x70;
const CONFIG: u64 = 0x100;
/// Status bits (virtio 1.2 §2.1).
const ORDER: u32 = 1 | 2 | 4 | 8;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

fuzz_target!(|bytes: &[u8]| {
    let Some((header, moves)) = driver::split(bytes) else {
        return;
    };
    ear::listen();
    let device: Box<dyn VirtioDevice> = match header[7] % 4 {
        0 => devices::rng::rng(header).0,
        1 => devices::block::block(header).0,
        2 => devices::balloon::balloon(header).0,
        _ => devices::net::net(header, moves).0,
    };
    let features = Manners::new(header, &*device).features;
    let regular = set_up(device.queue_sizes().len() as u32, features);
    let mut regular = regular.iter().cycle();
    let line = Event::new().expect("an event");
    let ram = ram::empty();
    let mut transport = MmioTransport::new(device, ram.clone(), line).expect("events");
    for step in moves.chunks_exact(11) {
        let (how, place, value) = (step[0], u16::from_le_bytes([step[1], step[2]]), &step[3..]);
        let width = usize::from(how >> 3 & 7) + 1;
        // Registers, the configuration space and a little of what is behind, or anywhere.
        let offset = u64::from(place) & if how & 0x40 == 0 { 0x1ff } else { 0xffff };
        match how & 7 {
            0 | 1 => write(&mut transport, offset, &value[..width]),
            2 => read(&mut transport, offset, width),
            3 => {
                let _ = ram.write_slice(&value[..width], GuestAddress(place.into()));
            }
            _ => {
                let (register, value) = regular.next().expect("a step");
                write(&mut transport, *register, &value.to_le_bytes());
            }
        }
    }
    // Joins the workers, so that a panic of theirs is this input's.
    write(&mut transport, STATUS, &[0; 4]);
});

fn register(transport: &mut MmioTransport, offset: u64) -> u32 {
    let mut data = [0; 4];
    transport.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn read(transport: &mut MmioTransport, offset: u64, width: usize) {
    let mut data = vec![0xa5; width];
    transport.read(offset, &mut data);
    if offset < CONFIG && (width != 4 || !offset.is_multiple_of(4)) {
        assert!(
            data.iter().all(|byte| *byte == 0),
            "{width} bytes at {offset:#x}"
        );
    }
}

fn write(transport: &mut MmioTransport, offset: u64, data: &[u8]) {
    let before = register(transport, STATUS);
    let _ = transport.write(offset, data);
    let reset = offset == STATUS && data == [0; 4];
    let mut status = register(transport, STATUS);
    // Its workers may need a moment, which drivers wait for as well.
    let since = Instant::now();
    while reset && status != 0 && since.elapsed() < NEVER {
        std::thread::yield_now();
        status = register(transport, STATUS);
    }
    assert_eq!(register(transport, 0), 0x7472_6976, "the magic value");
    assert!(
        matches!(status & ORDER, 0 | 1 | 3 | 11 | 15),
        "status {status:#x}"
    );
    assert_eq!(
        status & !(ORDER | NEEDS_RESET | FAILED),
        0,
        "status {status:#x}"
    );
    if reset {
        assert_eq!(status, 0, "a reset that did not happen");
    } else {
        // A worker may have found its queue broken in between; nothing else comes or goes by itself.
        assert_eq!(before & !status, 0, "bits that only a reset takes away");
        assert!(offset == STATUS || (status & !before) & !NEEDS_RESET == 0);
    }
    if status & FEATURES_OK == 0 {
        assert_eq!(
            register(transport, QUEUE_READY),
            0,
            "a queue before its features"
        );
    }
}
