//! Measures a virtio socket device (`mmio=ADDRESS`).
//!
//! Connects to port 1024 of the host. `mode=send` (the default) sends `bytes=N` (default 1 GiB) in packets of 64 KiB;
//! `mode=receive` takes what comes up to its end. The result reads
//!
//! ```text
//! send bytes=1073741824 packets=16384 kicks=1234 tsc=123456789 khz=2596132
//! ```
//!
//! `kicks` counts notifications, each an exit. Rings and transport are the `virtio-drivers` crate's.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use core::sync::atomic::{Ordering, fence};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{cpu, println};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

const QUEUE_SIZE: usize = 32;
const HEADER_BYTES: usize = 44;
const DATA_BYTES: usize = 64 << 10;
/// What is told to the host that there is room for.
const ROOM: u32 = 1 << 20;
const HOST_PORT: u32 = 1024;
const OWN_PORT: u32 = 4000;

// Operations (virtio 1.2 §5.10.6).
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;
/// In a shutdown's flags: its sender sends nothing more (VIRTIO_VSOCK_SHUTDOWN_F_SEND).
const NO_MORE_DATA: u32 = 2;

struct Ring {
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    index: u16,
    buffers: Vec<Vec<u8>>,
    /// How much of each was added.
    added: Vec<usize>,
    owners: [usize; QUEUE_SIZE],
    free: Vec<usize>,
    kicks: u64,
}

impl Ring {
    fn new(transport: &mut MmioTransport<'_>, index: u16, features: u64) -> Self {
        Self {
            queue: virtio::polled_queue(transport, index, features),
            index,
            buffers: vec![vec![0; HEADER_BYTES + DATA_BYTES]; QUEUE_SIZE],
            added: vec![0; QUEUE_SIZE],
            owners: [0; QUEUE_SIZE],
            free: (0..QUEUE_SIZE).collect(),
            kicks: 0,
        }
    }

    /// Gives the device a buffer to read so many bytes of, or to write to.
    fn add(&mut self, index: usize, bytes: usize, writable: bool) {
        self.added[index] = bytes;
        let buffer = &mut self.buffers[index][..bytes];
        let token = match writable {
            // SAFETY: the buffer stays as it is until its token is popped.
            true => unsafe { self.queue.add(&[], &mut [buffer]) },
            // SAFETY: as above.
            false => unsafe { self.queue.add(&[buffer], &mut []) },
        };
        match token {
            Ok(token) => self.owners[usize::from(token)] = index,
            Err(error) => panic!("queue {}: cannot add a buffer: {error}", self.index),
        }
    }

    /// A buffer that the device has used, and how much it wrote.
    fn pop(&mut self, writable: bool) -> Option<(usize, usize)> {
        let token = self.queue.peek_used()?;
        let index = self.owners[usize::from(token)];
        let buffer = &mut self.buffers[index][..self.added[index]];
        let popped = match writable {
            // SAFETY: the buffer that was added with this token.
            true => unsafe { self.queue.pop_used(token, &[], &mut [buffer]) },
            // SAFETY: as above.
            false => unsafe { self.queue.pop_used(token, &[buffer], &mut []) },
        };
        match popped {
            Ok(written) => Some((index, written as usize)),
            Err(error) => panic!("queue {}: {error}", self.index),
        }
    }

    fn kick(&mut self, transport: &mut MmioTransport<'_>) {
        // The barrier between making requests available and asking whether to notify (virtio 1.2 §2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            transport.notify(self.index);
            self.kicks += 1;
        }
    }
}

struct Link {
    transport: MmioTransport<'static>,
    receive: Ring,
    send: Ring,
    cid: u64,
    sent: u32,
    forwarded: u32,
    told: u32,
    peer_room: u32,
    peer_forwarded: u32,
    packets: u64,
}

impl Link {
    fn new(info: &BootInfo) -> Self {
        let mut transport = virtio::device(info, DeviceType::Socket);
        let features = virtio::negotiate(&mut transport, virtio::benchmark_features(info));
        // The upper half of the address is zero (§5.10.4).
        let cid = match transport.read_config_space::<u32>(0) {
            Ok(cid) => u64::from(cid),
            Err(error) => panic!("the guest's address: {error}"),
        };
        let receive = Ring::new(&mut transport, 0, features);
        let send = Ring::new(&mut transport, 1, features);
        transport.finish_init();
        let mut link = Self {
            transport,
            receive,
            send,
            cid,
            sent: 0,
            forwarded: 0,
            told: 0,
            peer_room: 0,
            peer_forwarded: 0,
            packets: 0,
        };
        for index in core::mem::take(&mut link.receive.free) {
            link.receive.add(index, HEADER_BYTES + DATA_BYTES, true);
        }
        link.receive.kick(&mut link.transport);
        link
    }

    /// Sends a packet with this many bytes of data; false if there is no buffer left for it.
    fn tell(&mut self, operation: u16, data: usize, flags: u32) -> bool {
        while let Some((index, _)) = self.send.pop(false) {
            self.send.free.push(index);
        }
        let Some(index) = self.send.free.pop() else {
            return false;
        };
        let buffer = &mut self.send.buffers[index];
        let fields: [(usize, &[u8]); 10] = [
            (0, &self.cid.to_le_bytes()),
            (8, &2u64.to_le_bytes()),
            (16, &OWN_PORT.to_le_bytes()),
            (20, &HOST_PORT.to_le_bytes()),
            (24, &(data as u32).to_le_bytes()),
            (28, &1u16.to_le_bytes()),
            (30, &operation.to_le_bytes()),
            (32, &flags.to_le_bytes()),
            (36, &ROOM.to_le_bytes()),
            (40, &self.forwarded.to_le_bytes()),
        ];
        for (at, bytes) in fields {
            buffer[at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.told = self.forwarded;
        self.sent = self.sent.wrapping_add(data as u32);
        self.send.add(index, HEADER_BYTES + data, false);
        self.send.kick(&mut self.transport);
        true
    }

    /// Operation, bytes of data and flags of the next packet, if one has come.
    fn hear(&mut self) -> Option<(u16, usize, u32)> {
        let (index, _) = self.receive.pop(true)?;
        let buffer = &self.receive.buffers[index];
        let word = |at: usize| {
            let bytes = [buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]];
            u32::from_le_bytes(bytes)
        };
        let (data, operation, flags) = (word(24) as usize, (word(28) >> 16) as u16, word(32));
        (self.peer_room, self.peer_forwarded) = (word(36), word(40));
        self.receive.add(index, HEADER_BYTES + DATA_BYTES, true);
        self.receive.kick(&mut self.transport);
        Some((operation, data, flags))
    }

    fn credit(&self) -> u32 {
        let flying = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_room.saturating_sub(flying)
    }

    fn expect(&mut self, wanted: u16) {
        loop {
            match self.hear() {
                Some((operation, ..)) if operation == wanted => return,
                Some((CREDIT_UPDATE, ..)) | None => core::hint::spin_loop(),
                Some((other, ..)) => panic!("operation {other} instead of {wanted}"),
            }
        }
    }

    fn send(&mut self, bytes: u64) {
        let mut left = bytes;
        while left > 0 {
            while self.hear().is_some() {}
            let data = left.min(DATA_BYTES as u64) as usize;
            if self.credit() as usize >= data && self.tell(DATA, data, 0) {
                left -= data as u64;
                self.packets += 1;
            }
        }
        while !self.tell(SHUTDOWN, 0, 3) {}
        self.expect(RESET);
    }

    fn receive(&mut self) -> u64 {
        let mut total = 0;
        loop {
            match self.hear() {
                Some((DATA, data, _)) => {
                    total += data as u64;
                    self.forwarded = self.forwarded.wrapping_add(data as u32);
                    self.packets += 1;
                    if self.forwarded.wrapping_sub(self.told) >= ROOM / 2 {
                        while !self.tell(CREDIT_UPDATE, 0, 0) {}
                    }
                }
                Some((CREDIT_REQUEST, ..)) => while !self.tell(CREDIT_UPDATE, 0, 0) {},
                // Of a host that only takes nothing more there may be data to come.
                Some((SHUTDOWN, _, flags)) if flags & NO_MORE_DATA != 0 => {
                    while !self.tell(RESET, 0, 0) {}
                    return total;
                }
                Some((RESET, ..)) => return total,
                Some(_) => {}
                None => core::hint::spin_loop(),
            }
        }
    }
}

fn run(info: &BootInfo) -> u8 {
    let mut link = Link::new(info);
    link.tell(REQUEST, 0, 0);
    link.expect(RESPONSE);
    let mode = info.option("mode").unwrap_or("send");
    let start = cpu::tsc();
    let bytes = match mode {
        "send" => {
            let bytes = info.number("bytes").unwrap_or(1 << 30);
            link.send(bytes);
            bytes
        }
        "receive" => link.receive(),
        other => panic!("command line: mode={other} is neither send nor receive"),
    };
    let tsc = cpu::tsc() - start;
    let khz = cpu::tsc_khz().unwrap_or(0);
    let (packets, kicks) = (link.packets, link.send.kicks + link.receive.kicks);
    println!("{mode} bytes={bytes} packets={packets} kicks={kicks} tsc={tsc} khz={khz}");
    0
}
