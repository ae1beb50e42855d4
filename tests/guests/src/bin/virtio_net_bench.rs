//! Measures a virtio network device (`mmio=ADDRESS`, or `bus=pci`), without TCP.
//!
//! `mode=send` (the default) sends `frames=N` (default 100000) broadcast frames of `size=S`
//! bytes (default 1514); `mode=receive` prints `ready` and takes N frames of type 0x88b5,
//! timed from the first to the last, ending early at a frame whose payload starts with
//! `quit`. The result reads
//!
//! ```text
//! send size=1514 frames=100000 bytes=151400000 kicks=3127 tsc=123456789 khz=2596132
//! ```
//!
//! `kicks` counts notifications, each an exit: one for all frames added together. Rings and
//! transport are the `virtio-drivers` crate's.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use core::sync::atomic::{Ordering, fence};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::ethernet::{self, MAX_FRAME_BYTES, MIN_FRAME_BYTES, Mac};
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{cpu, println};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

kvmlet_guests::program!(run);

const RECEIVE_QUEUE: u16 = 0;
const SEND_QUEUE: u16 = 1;
const QUEUE_SIZE: usize = 128;
/// virtio_net_hdr of a VERSION_1 device, all zeros: no offloads (virtio 1.2 §5.1.6).
const NET_HEADER_BYTES: usize = 12;
/// Feature bit: the device has a MAC address.
const MAC: u64 = 1 << 5;

type Buffer = [u8; NET_HEADER_BYTES + MAX_FRAME_BYTES];

/// A queue with a buffer for each of its descriptors.
struct Ring {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    index: u16,
    event_idx: bool,
    buffers: Vec<Buffer>,
    /// The buffer behind each token.
    owners: [usize; QUEUE_SIZE],
    kicks: u64,
}

#[derive(Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    tsc: u64,
}

fn run(info: &BootInfo) -> u8 {
    let mut transport = virtio::device_on_any_bus(info, DeviceType::Network);
    let wanted = virtio::benchmark_features(info) | MAC;
    let features = virtio::negotiate(&mut transport, wanted);
    let mac = match transport.read_config_space::<Mac>(0) {
        Ok(mac) => mac,
        Err(error) => panic!("the device's MAC address: {error}"),
    };
    // A queue that is not set up would do, but drivers in the field set up both.
    let mut receive = Ring::new(&mut transport, RECEIVE_QUEUE, features);
    let mut send = Ring::new(&mut transport, SEND_QUEUE, features);
    transport.finish_init();
    let frames = info.number("frames").unwrap_or(100_000);
    let size = info.number("size").unwrap_or(MAX_FRAME_BYTES as u64) as usize;
    assert!(
        (MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&size),
        "size= must be 60 to 1514"
    );
    let (counts, kicks) = match info.option("mode") {
        None | Some("send") => (send.send(&mut transport, mac, frames, size), send.kicks),
        Some("receive") => (receive.receive(&mut transport, frames), receive.kicks),
        Some(other) => panic!("command line: mode={other} is neither send nor receive"),
    };
    let mode = info.option("mode").unwrap_or("send");
    let Counts { frames, bytes, tsc } = counts;
    let khz = cpu::tsc_khz().unwrap_or(0);
    println!("{mode} size={size} frames={frames} bytes={bytes} kicks={kicks} tsc={tsc} khz={khz}");
    0
}

impl Ring {
    fn new(transport: &mut SomeTransport<'_>, index: u16, features: u64) -> Self {
        Self {
            queue: virtio::polled_queue(transport, index, features),
            index,
            event_idx: features & virtio::feature::EVENT_IDX != 0,
            buffers: vec![[0; NET_HEADER_BYTES + MAX_FRAME_BYTES]; QUEUE_SIZE],
            owners: [0; QUEUE_SIZE],
            kicks: 0,
        }
    }

    /// Keeps the ring full until `frames` frames have been sent.
    fn send(
        &mut self,
        transport: &mut SomeTransport<'_>,
        mac: Mac,
        frames: u64,
        size: usize,
    ) -> Counts {
        let bytes = NET_HEADER_BYTES + size;
        for buffer in &mut self.buffers {
            ethernet::write_broadcast_header(&mut buffer[NET_HEADER_BYTES..], mac);
        }
        let start = cpu::tsc();
        let first_round = frames.min(QUEUE_SIZE as u64);
        (0..first_round as usize).for_each(|index| self.add_sent(index, bytes));
        let (mut added, mut sent) = (first_round, 0);
        self.kick(transport);
        while sent < frames {
            let mut refilled = false;
            while let Some(token) = self.queue.peek_used() {
                let index = self.owners[usize::from(token)];
                // SAFETY: the buffer that was added with this token.
                let popped = unsafe {
                    self.queue
                        .pop_used(token, &[&self.buffers[index][..bytes]], &mut [])
                };
                assert!(popped.is_ok(), "sending: {popped:?}");
                sent += 1;
                if added < frames {
                    self.add_sent(index, bytes);
                    added += 1;
                    refilled = true;
                }
            }
            if refilled {
                self.kick(transport);
            }
        }
        Counts {
            frames,
            bytes: frames * size as u64,
            tsc: cpu::tsc() - start,
        }
    }

    /// Takes frames until `frames` of our type have come, or a quit.
    fn receive(&mut self, transport: &mut SomeTransport<'_>, frames: u64) -> Counts {
        (0..QUEUE_SIZE).for_each(|index| self.add_received(index));
        self.kick(transport);
        println!("ready");
        let mut counts = Counts::default();
        let mut start = None;
        while counts.frames < frames {
            let mut refilled = false;
            while let Some(token) = self.queue.peek_used() {
                let index = self.owners[usize::from(token)];
                // SAFETY: the buffer that was added with this token.
                let popped = unsafe {
                    self.queue
                        .pop_used(token, &[], &mut [&mut self.buffers[index]])
                };
                let Ok(length) = popped else {
                    panic!("receiving: {popped:?}")
                };
                let start = *start.get_or_insert_with(cpu::tsc);
                let frame = &self.buffers[index][NET_HEADER_BYTES..length as usize];
                counts.tsc = cpu::tsc() - start;
                if ethernet::is_quit(frame) {
                    return counts;
                }
                if ethernet::is_ours(frame) {
                    counts.frames += 1;
                    counts.bytes += frame.len() as u64;
                }
                self.add_received(index);
                refilled = true;
            }
            if refilled {
                self.kick(transport);
            }
        }
        counts
    }

    fn add_sent(&mut self, index: usize, bytes: usize) {
        // SAFETY: the buffer stays as it is until its token is popped.
        let token = unsafe { self.queue.add(&[&self.buffers[index][..bytes]], &mut []) };
        self.remember(index, token);
    }

    fn add_received(&mut self, index: usize) {
        // SAFETY: as above.
        let token = unsafe { self.queue.add(&[], &mut [&mut self.buffers[index]]) };
        self.remember(index, token);
    }

    fn remember(&mut self, index: usize, token: virtio_drivers::Result<u16>) {
        match token {
            Ok(token) => self.owners[usize::from(token)] = index,
            Err(error) => panic!("queue {}: cannot add a buffer: {error}", self.index),
        }
    }

    /// Notifies the device, unless it has asked not to be. With event indices always: the
    /// driver crate's comparison is wrong once the index wraps around.
    fn kick(&mut self, transport: &mut SomeTransport<'_>) {
        // The barrier between making requests available and asking whether to notify (virtio 1.2
        // §2.7.13.4.1), which the crate leaves out: without it a notification is lost now and then.
        fence(Ordering::SeqCst);
        if self.event_idx || self.queue.should_notify() {
            transport.notify(self.index);
            self.kicks += 1;
        }
    }
}
