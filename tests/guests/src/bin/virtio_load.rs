//! Keeps virtio disks (`disks=ADDRESS,ADDRESS...`) and a network device (`mmio=ADDRESS`, if there is one) busy at
//! the same time, for measuring the memory that the VMM uses then. Never ends.
//!
//! Each disk has 32 requests in flight, reads and writes by turns, of `pieces=N` pieces (default 16) of 512 bytes
//! that do not lie side by side, from its start to its end and again; the network device has a full ring of
//! frames to send and one of buffers to receive into, of each of `pairs=N` pairs (default 1). Overwrites the disks, unless `only=read`. Prints `loaded`
//! when each disk has answered 2000 requests and as many frames have been sent. Rings and transport are the
//! `virtio-drivers` crate's.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use core::sync::atomic::{Ordering, fence};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::ethernet::{self, MAX_FRAME_BYTES, Mac};
use kvmlet_guests::heap::{PAGE_BYTES, take_pages};
use kvmlet_guests::println;
use kvmlet_guests::virtio::{self, Identity};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

const QUEUE_SIZE: usize = 128;
const REQUESTS: usize = 32;
const SECTOR_BYTES: usize = 512;
/// What counts as being under load.
const ENOUGH: u64 = 2000;
/// virtio_net_hdr of a VERSION_1 device, all zeros: no offloads (virtio 1.2 §5.1.6).
const NET_HEADER_BYTES: usize = 12;
/// Feature bits: the device has a MAC address, a control queue, several pairs of queues.
const MAC: u64 = 1 << 5;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
/// Class and command: use that many pairs (§5.1.6.5.5).
const USE_PAIRS: [u8; 2] = [4, 0];

/// What a request is made of; only the place on a disk is another each time.
struct Slot {
    header: Option<&'static mut [u8]>,
    readable: Vec<&'static [u8]>,
    writable: Vec<&'static mut [u8]>,
}

/// A queue whose requests are made available again as soon as they have been answered.
struct Lane {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    index: u16,
    slots: Vec<Slot>,
    /// The slot behind each token.
    owners: [usize; QUEUE_SIZE],
    /// Of a disk, where the next request goes and where it ends, in sectors.
    place: u64,
    end: u64,
    step: u64,
    answered: u64,
}

fn run(info: &BootInfo) -> u8 {
    let wanted = virtio::benchmark_features(info);
    let pieces = info.number("pieces").unwrap_or(16);
    let writes = info.option("only") != Some("read");
    let disks = info.option("disks").unwrap_or_default();
    let mut devices: Vec<_> = disks
        .split(',')
        .map(|address| disk(address, wanted, pieces, writes))
        .collect();
    if info.option("mmio").is_some() {
        devices.push(interface(info, wanted));
    }
    for (transport, lanes) in &mut devices {
        lanes.iter_mut().for_each(|lane| lane.start(transport));
    }
    let mut told = false;
    loop {
        let mut least = u64::MAX;
        for (transport, lanes) in &mut devices {
            let answered = lanes.iter_mut().map(|lane| lane.turn(transport)).max();
            least = least.min(answered.unwrap_or(0));
        }
        if least >= ENOUGH && !told {
            println!("loaded");
            told = true;
        }
    }
}

type Busy = (MmioTransport<'static>, Vec<Lane>);

fn disk(address: &str, wanted: u64, pieces: u64, writes: bool) -> Busy {
    let digits = address.strip_prefix("0x").unwrap_or(address);
    let Ok(address) = u64::from_str_radix(digits, 16) else {
        panic!("command line: {address} is no address of a disk")
    };
    let mut transport = virtio::device_at(address, DeviceType::Block);
    let features = virtio::negotiate(&mut transport, wanted);
    let slots = (0..REQUESTS)
        .map(|number| request(pieces, writes && number % 2 == 1))
        .collect();
    let mut lane = Lane::new(&mut transport, 0, features, slots);
    // The lower half of the capacity: 2 TiB are enough.
    let Ok(sectors) = transport.read_config_space::<u32>(0) else {
        panic!("the disk has no capacity")
    };
    (lane.end, lane.step) = (u64::from(sectors), pieces);
    transport.finish_init();
    (transport, vec![lane])
}

fn interface(info: &BootInfo, wanted: u64) -> Busy {
    let mut transport = virtio::device(info, DeviceType::Network);
    let pairs = info.number("pairs").unwrap_or(1) as u16;
    let several = if pairs > 1 { MQ | CTRL_VQ } else { 0 };
    let features = virtio::negotiate(&mut transport, wanted | MAC | several);
    let Ok(mac) = transport.read_config_space::<Mac>(0) else {
        panic!("the device has no MAC address")
    };
    let mut lanes = Vec::new();
    for pair in 0..pairs {
        let buffers = (0..QUEUE_SIZE).map(|_| buffer()).collect();
        lanes.push(Lane::new(&mut transport, 2 * pair, features, buffers));
        let frames = (0..QUEUE_SIZE).map(|_| frame(mac)).collect();
        lanes.push(Lane::new(&mut transport, 2 * pair + 1, features, frames));
    }
    if pairs > 1 {
        use_pairs(&mut transport, pairs, features);
    } else {
        transport.finish_init();
    }
    (transport, lanes)
}

fn use_pairs(transport: &mut MmioTransport<'static>, pairs: u16, features: u64) {
    let mut control = virtio::polled_queue::<16>(transport, 2 * pairs, features);
    transport.finish_init();
    let [low, high] = pairs.to_le_bytes();
    let [class, command] = USE_PAIRS;
    let mut answer = [0xee];
    let order = [class, command, low, high];
    let given = control.add_notify_wait_pop(&[&order], &mut [&mut answer], transport);
    assert!(given.is_ok() && answer == [0], "{answer:?}");
    // The device goes on with its memory.
    core::mem::forget(control);
}

/// Memory that stays, on pages of its own.
fn memory(bytes: usize) -> &'static mut [u8] {
    let start = take_pages((bytes as u64).div_ceil(PAGE_BYTES));
    // SAFETY: pages that the heap has just given out, for good.
    unsafe { core::slice::from_raw_parts_mut(start as *mut u8, bytes) }
}

/// A read or a write (virtio 1.2 §5.2.6).
fn request(pieces: u64, is_write: bool) -> Slot {
    let header = memory(16);
    header[0] = is_write.into();
    let (mut readable, mut writable) = (Vec::new(), Vec::new());
    for _ in 0..pieces {
        let piece = memory(SECTOR_BYTES);
        match is_write {
            true => readable.push(&*piece),
            false => writable.push(piece),
        }
    }
    writable.push(memory(1));
    Slot {
        header: Some(header),
        readable,
        writable,
    }
}

fn buffer() -> Slot {
    Slot {
        header: None,
        readable: Vec::new(),
        writable: vec![memory(NET_HEADER_BYTES + MAX_FRAME_BYTES)],
    }
}

fn frame(mac: Mac) -> Slot {
    let frame = memory(NET_HEADER_BYTES + MAX_FRAME_BYTES);
    ethernet::write_broadcast_header(&mut frame[NET_HEADER_BYTES..], mac);
    Slot {
        header: None,
        readable: vec![frame],
        writable: Vec::new(),
    }
}

impl Slot {
    /// The pieces as the queue takes them.
    fn pieces(&mut self) -> (Vec<&[u8]>, Vec<&mut [u8]>) {
        let header = self.header.as_deref().into_iter();
        let writable = self.writable.iter_mut().map(|piece| &mut **piece);
        (
            header.chain(self.readable.iter().copied()).collect(),
            writable.collect(),
        )
    }
}

impl Lane {
    fn new(transport: &mut MmioTransport<'_>, index: u16, features: u64, slots: Vec<Slot>) -> Self {
        Self {
            queue: virtio::polled_queue(transport, index, features),
            index,
            slots,
            owners: [0; QUEUE_SIZE],
            place: 0,
            end: 0,
            step: 0,
            answered: 0,
        }
    }

    fn start(&mut self, transport: &mut MmioTransport<'_>) {
        (0..self.slots.len()).for_each(|slot| self.add(slot));
        self.kick(transport);
    }

    /// Takes what has been answered and offers it again; how many there have been so far.
    fn turn(&mut self, transport: &mut MmioTransport<'_>) -> u64 {
        let before = self.answered;
        while let Some(token) = self.queue.peek_used() {
            let number = self.owners[usize::from(token)];
            let slot = &mut self.slots[number];
            let (readable, mut writable) = slot.pieces();
            // SAFETY: the buffers that `add` passed for this token.
            let popped = unsafe { self.queue.pop_used(token, &readable, &mut writable) };
            assert!(popped.is_ok(), "queue {}: {popped:?}", self.index);
            self.answered += 1;
            self.add(number);
        }
        if self.answered > before {
            self.kick(transport);
        }
        self.answered
    }

    fn add(&mut self, number: usize) {
        let slot = &mut self.slots[number];
        if let Some(header) = &mut slot.header {
            header[8..].copy_from_slice(&self.place.to_le_bytes());
            let next = self.place + self.step;
            self.place = if next + self.step <= self.end {
                next
            } else {
                0
            };
        }
        let (readable, mut writable) = slot.pieces();
        // SAFETY: the slot stays as it is until `turn` has popped its token.
        match unsafe { self.queue.add(&readable, &mut writable) } {
            Ok(token) => self.owners[usize::from(token)] = number,
            Err(error) => panic!("queue {}: cannot add a request: {error}", self.index),
        }
    }

    /// Notifies the device, unless it has asked not to be.
    fn kick(&mut self, transport: &mut MmioTransport<'_>) {
        // The barrier between making requests available and asking whether to notify (virtio 1.2
        // §2.7.13.4.1), which the crate leaves out.
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            transport.notify(self.index);
        }
    }
}
