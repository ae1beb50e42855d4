//! A driver whose every move the fuzzer chooses: register accesses, rings and buffers.
#![allow(dead_code)] // each target uses its part

pub mod devices;

use kvmlet::devices::Device;
use kvmlet::devices::virtio::{MmioTransport, VirtioDevice};
use kvmlet::memory::{Backing, GuestRam};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

/// Guest RAM: the rings of queue n are at n * 4096, buffers behind, or wherever the fuzzer points.
const RAM_BYTES: usize = 1 << 20;
/// Entries of each queue.
const ENTRIES: u32 = 16;
/// Where the rings of a queue begin, from its descriptor table.
const AVAIL: u64 = 256;
const USED: u64 = 512;
/// A table for indirect descriptors, and buffers for chains.
const INDIRECT: u64 = 0x8000;
const BUFFERS: u64 = 0x1_0000;
/// Lengths at which devices do different things.
const LENGTHS: [u32; 8] = [0, 1, 12, 16, 20, 512, 4096, 65536];
/// How long a worker gets to look at what it was told of.
const PATIENCE: Duration = Duration::from_micros(300);

/// Guest RAM as it is at the start of an input: empty, so that the input does the same again.
pub fn empty_ram() -> &'static GuestRam {
    static RAM: LazyLock<GuestRam> = LazyLock::new(|| {
        GuestRam::allocate(&[(GuestAddress(0), RAM_BYTES)], Backing::default()).expect("1 MiB")
    });
    static ZEROES: [u8; RAM_BYTES] = [0; RAM_BYTES];
    RAM.write_slice(&ZEROES, GuestAddress(0)).expect("RAM");
    &RAM
}

/// Sets a device up by the rules and then makes the moves that `bytes` spell. The first byte says which of the
/// offered features are accepted.
pub fn drive(device: Box<dyn VirtioDevice>, bytes: &[u8]) {
    let Some((choice, moves)) = bytes.split_first() else {
        return;
    };
    let features = accepted(&*device, *choice);
    let mut driver = Driver::new(device, features);
    driver.set_up();
    for step in moves.chunks_exact(12) {
        let value: [u8; 8] = std::array::from_fn(|index| step[4 + index]);
        driver.step(step[0], [step[1], step[2], step[3]], value);
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        std::thread::yield_now();
    }
    // Joins the workers, so that a panic of theirs is this input's.
    driver.write(0x70, 0);
}

/// VERSION_1, and as `choice` says: indirect descriptors, event indices, all that the device is for.
pub fn accepted(device: &dyn VirtioDevice, choice: u8) -> u64 {
    let choice = u64::from(choice);
    let own = if choice & 4 == 0 {
        device.features()
    } else {
        0
    };
    1 << 32 | (choice & 3) << 28 | own
}

struct Driver {
    transport: MmioTransport,
    ram: &'static GuestRam,
    queues: u32,
    features: u64,
    /// What was made available in each queue.
    available: Vec<u16>,
}

impl Driver {
    fn new(device: Box<dyn VirtioDevice>, features: u64) -> Self {
        let queues = device.queue_sizes().len() as u32;
        let line = EventFd::new(0).expect("an event");
        let ram = empty_ram();
        let transport = MmioTransport::new(device, ram.clone(), line).expect("events");
        let available = vec![0; queues as usize];
        Self {
            transport,
            ram,
            queues,
            features,
            available,
        }
    }

    fn write(&mut self, register: u64, value: u32) {
        let _ = self.transport.write(register, &value.to_le_bytes());
    }

    /// Writes that leave RAM are tried as well, and do nothing.
    fn poke(&self, address: u64, bytes: &[u8]) {
        let _ = self.ram.write_slice(bytes, GuestAddress(address));
    }

    fn set_up(&mut self) {
        for (register, value) in set_up(self.queues, self.features) {
            self.write(register, value);
        }
        self.available.fill(0);
    }

    /// One move; the upper bits of `how` choose the queue.
    fn step(&mut self, how: u8, [a, b, c]: [u8; 3], value: [u8; 8]) {
        let queue = u32::from(how >> 3) % self.queues;
        let place = u64::from(u16::from_le_bytes([a, b]));
        match how & 7 {
            0 => {
                let width = [4, 4, 1, 2, 8, 3, 5, 4][usize::from(c & 7)];
                let _ = self.transport.write(place & 0x1ff, &value[..width]);
            }
            1 => self
                .transport
                .read(place & 0x1ff, &mut [0; 8][..usize::from(c & 7) + 1]),
            2 => self.poke(place * 2, &value),
            3 => self.describe_anything(queue, a, c, value),
            4 => self.offer(queue, a.into()),
            5 | 6 => self.chain(queue, a, b, value),
            _ if a & 1 == 0 => std::thread::yield_now(),
            _ => {
                self.write(0x70, 0);
                self.poke(0, &[0; 0x8000]);
                self.set_up();
            }
        }
    }

    /// A descriptor as the fuzzer likes it, in a queue's own table or in an indirect one.
    fn describe_anything(&self, queue: u32, entry: u8, kind: u8, value: [u8; 8]) {
        let [low, high, length, ..] = value;
        let mut address = BUFFERS + u64::from(u16::from_le_bytes([low, high]));
        let mut bytes = LENGTHS[usize::from(length & 7)] + u32::from(length >> 5);
        match kind & 3 {
            0 => address = u64::from_le_bytes(value),
            1 => bytes = u32::from_le_bytes([value[2], value[3], value[4], value[5]]),
            2 => address = INDIRECT,
            _ => {}
        }
        let table = if kind & 4 == 0 {
            u64::from(queue) * 4096
        } else {
            INDIRECT
        };
        let flags = u16::from(value[6] & 7);
        self.describe(
            table,
            (entry & 31).into(),
            (address, bytes, flags, (value[7] & 31).into()),
        );
    }

    fn describe(
        &self,
        table: u64,
        entry: u16,
        (address, bytes, flags, next): (u64, u32, u16, u16),
    ) {
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&bytes.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..].copy_from_slice(&next.to_le_bytes());
        self.poke(table + 16 * u64::from(entry), &descriptor);
    }

    /// A chain that is mostly in order: a header of 16 bytes (what a block request begins with), then buffers;
    /// which of them are writable is the fuzzer's choice.
    fn chain(&mut self, queue: u32, shape: u8, writable: u8, value: [u8; 8]) {
        let mut header = [0; 16];
        header[0] = value[4];
        header[8] = value[5];
        header[9..11].copy_from_slice(&value[6..]);
        self.poke(BUFFERS, &header);
        let count = u16::from(shape & 3) + 1;
        let first = u16::from(shape >> 4);
        let table = u64::from(queue) * 4096;
        for index in 0..count {
            let length = LENGTHS[usize::from(value[usize::from(index)] & 7)];
            let address = BUFFERS + 0x1000 * u64::from(index);
            let more = u16::from(index + 1 < count);
            let write = u16::from(writable >> index & 1) << 1;
            let entry = (first + index) % ENTRIES as u16;
            let next = (entry + 1) % ENTRIES as u16;
            self.describe(table, entry, (address, length, more | write, next));
        }
        self.offer(queue, first);
    }

    fn offer(&mut self, queue: u32, head: u16) {
        let ring = u64::from(queue) * 4096 + AVAIL;
        let index = &mut self.available[queue as usize];
        let slot = ring + 4 + 2 * u64::from(*index % ENTRIES as u16);
        *index = index.wrapping_add(1);
        let index = *index;
        self.poke(slot, &head.to_le_bytes());
        self.poke(ring + 2, &index.to_le_bytes());
        self.write(0x50, queue);
    }
}

/// The writes that set a device up by the rules and notify it: register and value.
pub fn set_up(queues: u32, features: u64) -> Vec<(u64, u32)> {
    let mut writes = vec![(0x70, 1), (0x70, 3)];
    for half in [0, 1] {
        writes.extend([(0x24, half), (0x20, (features >> (32 * half)) as u32)]);
    }
    writes.push((0x70, 11));
    for queue in 0..queues {
        writes.extend([(0x30, queue), (0x38, ENTRIES)]);
        let base = queue * 4096;
        for (register, place) in [
            (0x80, base),
            (0x90, base + AVAIL as u32),
            (0xa0, base + USED as u32),
        ] {
            writes.extend([(register, place), (register + 4, 0)]);
        }
        writes.push((0x44, 1));
    }
    writes.push((0x70, 15));
    writes.extend((0..queues).map(|queue| (0x50, queue)));
    writes
}
