//! Measures a virtio block device (`mmio=ADDRESS`, or `bus=pci`): 4 KiB reads and writes at random places
//! at depth 1 and 32, and 1 MiB requests one after the other. Overwrites the disk, unless
//! `only=read`.
//!
//! `ops=N` is the number of 4 KiB requests (default 20000), `large_ops=N` of 1 MiB requests
//! (default 256), `span=BYTES` limits the part of the disk used. With `stay=1` it does not end. Each line reads
//!
//! ```text
//! read4k depth=32 ops=20000 kicks=812 tsc=123456789 khz=2596132
//! ```
//!
//! `kicks` counts notifications, each an exit; `khz` is the TSC frequency, 0 if the VMM does
//! not tell. At depth 32 every request that has ended is replaced at once, with one
//! notification for all that were found ended together.
//!
//! Rings and transport are the `virtio-drivers` crate's; its block driver cannot be used
//! because it has 16 descriptors and notifies once per request.
#![no_std]
#![no_main]

use core::sync::atomic::{Ordering, fence};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::{PAGE_BYTES, take_pages};
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{cpu, power, println};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

kvmlet_guests::program!(run);

const QUEUE: u16 = 0;
/// Room for 32 requests of three descriptors.
const QUEUE_SIZE: usize = 128;
const MAX_DEPTH: usize = 32;
const SECTOR_BYTES: u64 = 512;
const SMALL_BYTES: u64 = 4096;
const LARGE_BYTES: u64 = 1 << 20;

/// Feature bit VIRTIO_BLK_F_FLUSH. Without it a device has to make each write durable before
/// it answers (virtio 1.2 §5.2.6.2), which is not what Linux guests ask for.
const FLUSH: u64 = 1 << 9;
/// Request types (virtio 1.2 §5.2.6).
const READ: u32 = 0;
const WRITE: u32 = 1;
/// A status byte that no device writes.
const UNANSWERED: u8 = 0xee;

/// One request's memory; the data buffer is elsewhere.
struct Slot {
    header: [u8; 16],
    status: [u8; 1],
    data: &'static mut [u8],
    token: Option<u16>,
}

struct Bench {
    transport: SomeTransport<'static>,
    queue: VirtQueue<Identity, QUEUE_SIZE>,
    slots: [Slot; MAX_DEPTH],
    span_bytes: u64,
    event_idx: bool,
    kicks: u64,
    seed: u64,
    khz: u32,
}

fn run(info: &BootInfo) -> u8 {
    let ops = info.number("ops").unwrap_or(20_000);
    let large_ops = info.number("large_ops").unwrap_or(256);
    let kinds: &[(&str, &str, u32)] = match info.option("only") {
        Some("read") => &[("read4k", "read1m", READ)],
        Some("write") => &[("write4k", "write1m", WRITE)],
        _ => &[("read4k", "read1m", READ), ("write4k", "write1m", WRITE)],
    };
    let mut bench = Bench::new(info);
    for (small, large, kind) in kinds {
        bench.measure(small, *kind, 1, ops, SMALL_BYTES);
        bench.measure(small, *kind, MAX_DEPTH, ops, SMALL_BYTES);
        bench.measure(large, *kind, 1, large_ops, LARGE_BYTES);
    }
    if info.number("stay").is_some() {
        power::stop();
    }
    0
}

/// The disk's size. In halves, because registers promise no more than 4-byte alignment.
fn capacity_bytes(transport: &SomeTransport<'_>) -> u64 {
    let sectors = transport.read_consistent(|| {
        let low: u32 = transport.read_config_space(0)?;
        let high: u32 = transport.read_config_space(4)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    });
    match sectors {
        Ok(sectors) => sectors * SECTOR_BYTES,
        Err(error) => panic!("the disk's capacity: {error}"),
    }
}

impl Bench {
    fn new(info: &BootInfo) -> Self {
        let mut transport = virtio::device_on_any_bus(info, DeviceType::Block);
        let wanted = virtio::benchmark_features(info) | FLUSH;
        let features = virtio::negotiate(&mut transport, wanted);
        let queue = virtio::polled_queue(&mut transport, QUEUE, features);
        let capacity = capacity_bytes(&transport);
        transport.finish_init();
        let span_bytes = info.number("span").unwrap_or(u64::MAX).min(capacity);
        assert!(
            span_bytes >= LARGE_BYTES,
            "the disk or span= is smaller than 1 MiB"
        );
        println!("features={features:#x} span={span_bytes}");
        Self {
            transport,
            queue,
            slots: core::array::from_fn(Slot::new),
            span_bytes,
            event_idx: features & virtio::feature::EVENT_IDX != 0,
            kicks: 0,
            seed: cpu::tsc() | 1,
            khz: cpu::tsc_khz().unwrap_or(0),
        }
    }

    /// Keeps `depth` requests of `bytes` in flight until `ops` have ended. Small requests go
    /// to random places, large ones one after the other.
    fn measure(&mut self, name: &str, kind: u32, depth: usize, ops: u64, bytes: u64) {
        self.kicks = 0;
        let (mut started, mut ended) = (0, 0);
        let start = cpu::tsc();
        while ended < ops {
            let mut added = false;
            for index in 0..depth {
                if self.slots[index].token.is_none() && started < ops {
                    let place = self.place(started, bytes);
                    self.submit(index, kind, place, bytes);
                    started += 1;
                    added = true;
                }
            }
            if added {
                self.kick();
            }
            ended += self.collect(kind, bytes);
        }
        let tsc = cpu::tsc() - start;
        let (kicks, khz) = (self.kicks, self.khz);
        println!("{name} depth={depth} ops={ops} kicks={kicks} tsc={tsc} khz={khz}");
    }

    /// Where request number `number` goes.
    fn place(&mut self, number: u64, bytes: u64) -> u64 {
        let places = self.span_bytes / bytes;
        if bytes == LARGE_BYTES {
            return number % places * bytes;
        }
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % places * bytes
    }

    fn submit(&mut self, index: usize, kind: u32, place: u64, bytes: u64) {
        let slot = &mut self.slots[index];
        slot.header[..4].copy_from_slice(&kind.to_le_bytes());
        slot.header[8..].copy_from_slice(&(place / SECTOR_BYTES).to_le_bytes());
        slot.status = [UNANSWERED];
        let data = &mut slot.data[..bytes as usize];
        // SAFETY: the slot stays as it is until `collect` has popped its token.
        let token = unsafe {
            if kind == READ {
                self.queue
                    .add(&[&slot.header], &mut [data, &mut slot.status])
            } else {
                self.queue
                    .add(&[&slot.header, data], &mut [&mut slot.status])
            }
        };
        match token {
            Ok(token) => slot.token = Some(token),
            Err(error) => panic!("cannot add a request: {error}"),
        }
    }

    /// Notifies the device, unless it has asked not to be. With event indices always: the
    /// driver crate's comparison is wrong once the index wraps around.
    fn kick(&mut self) {
        // The barrier between making requests available and asking whether to notify (virtio 1.2
        // §2.7.13.4.1), which the crate leaves out: without it a notification is lost now and then.
        fence(Ordering::SeqCst);
        if self.event_idx || self.queue.should_notify() {
            self.transport.notify(QUEUE);
            self.kicks += 1;
        }
    }

    /// Waits until something has ended, then takes all that has; how many.
    fn collect(&mut self, kind: u32, bytes: u64) -> u64 {
        let mut ended = 0;
        loop {
            let Some(token) = self.queue.peek_used() else {
                if ended > 0 {
                    return ended;
                }
                core::hint::spin_loop();
                continue;
            };
            let Some(slot) = self.slots.iter_mut().find(|slot| slot.token == Some(token)) else {
                panic!("the device used descriptor {token}, which no request has")
            };
            let data = &mut slot.data[..bytes as usize];
            // SAFETY: the buffers that `submit` passed for this token.
            let popped = unsafe {
                if kind == READ {
                    self.queue
                        .pop_used(token, &[&slot.header], &mut [data, &mut slot.status])
                } else {
                    self.queue
                        .pop_used(token, &[&slot.header, data], &mut [&mut slot.status])
                }
            };
            assert!(
                popped.is_ok() && slot.status == [0],
                "a request failed: {:?}",
                slot.status
            );
            slot.token = None;
            ended += 1;
        }
    }
}

impl Slot {
    /// Large requests run at depth 1, so only the first slot needs room for them.
    fn new(index: usize) -> Self {
        let bytes = if index == 0 { LARGE_BYTES } else { SMALL_BYTES };
        let start = take_pages(bytes / PAGE_BYTES);
        // SAFETY: pages that the heap has just given out, for good.
        let data = unsafe { core::slice::from_raw_parts_mut(start as *mut u8, bytes as usize) };
        Self {
            header: [0; 16],
            status: [0],
            data,
            token: None,
        }
    }
}
