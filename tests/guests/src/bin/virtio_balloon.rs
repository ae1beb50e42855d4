//! Drives a virtio balloon (`mmio=ADDRESS`) of `pages=N` pages (default 8192), over the rings and the
//! transport of the `virtio-drivers` crate, which has no driver for balloons.
//!
//! All by itself it follows the device's target and prints `balloon=PAGES` when it is there, and it answers
//! questions for statistics: free and total memory of the `pages=N`, and as minor faults the number of the
//! answer. The rest it does when a letter comes on COM1:
//!
//! - `t` writes to each page outside the balloon: `touched=PAGES`
//! - `c` looks what is there: `empty=PAGES held=PAGES`
//! - `r` reports all pages as free: `reported=PAGES`
//! - `q` ends with 0
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::{PAGE_BYTES, take_pages};
use kvmlet_guests::mmio::{read64, write64};
use kvmlet_guests::port::outb;
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{println, serial};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

/// Feature bits (virtio 1.2 §5.5.3).
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_REPORTING: u64 = 1 << 5;

/// Queues, numbered as Linux does.
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATISTICS: u16 = 2;
const REPORTS: u16 = 3;
const QUEUE_SIZE: usize = 64;

/// Offsets in the configuration space (§5.5.4).
const TARGET: usize = 0;
const ACTUAL: usize = 4;

/// Page numbers in a request, and ranges in a report, as of Linux's driver.
const PAGES_PER_REQUEST: usize = 256;
const RANGES_PER_REPORT: usize = 32;
/// Size of a range: 128 KiB.
const PAGES_PER_RANGE: u64 = 32;

/// Statistics: a tag of two bytes and a value of eight each (§5.5.6.4).
const MINOR_FAULTS: u16 = 3;
const FREE: u16 = 4;
const TOTAL: u16 = 5;
const STATISTICS_BYTES: usize = 30;

/// MCR: DTR and RTS, without which the other side has no reason to send.
const MCR_READY: u8 = 0x03;
/// What a touched page begins with, less its number.
const MARK: u64 = 0xba11_0000_0000_0000;

type Queue = VirtQueue<Identity, QUEUE_SIZE>;

struct Balloon {
    transport: MmioTransport<'static>,
    inflate: Queue,
    deflate: Queue,
    statistics: Queue,
    reports: Option<Queue>,
    /// The buffer of statistics that the device holds, by its token.
    told: Option<u16>,
    buffer: [u8; STATISTICS_BYTES],
    answers: u64,
    /// Where the pages are, and how many. The first `inflated` are in the balloon.
    first: u64,
    pages: u64,
    inflated: u64,
}

fn run(info: &BootInfo) -> u8 {
    let mut balloon = Balloon::new(info);
    outb(serial::MCR, MCR_READY);
    loop {
        balloon.follow_target();
        balloon.tell_statistics();
        match serial::try_read() {
            Some(b't') => balloon.touch(),
            Some(b'c') => balloon.check(),
            Some(b'r') => balloon.report(),
            Some(b'q') => return 0,
            Some(other) => panic!("no such command: {other}"),
            None => core::hint::spin_loop(),
        }
    }
}

impl Balloon {
    fn new(info: &BootInfo) -> Self {
        let mut transport = virtio::device(info, DeviceType::MemoryBalloon);
        let wanted = virtio::feature::VERSION_1 | STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING;
        let features = virtio::negotiate(&mut transport, wanted);
        assert!(features & STATS_VQ != 0, "the device takes no statistics");
        let mut queue = |index| virtio::polled_queue(&mut transport, index, features);
        let (inflate, deflate, statistics) = (queue(INFLATE), queue(DEFLATE), queue(STATISTICS));
        let reports = (features & PAGE_REPORTING != 0).then(|| queue(REPORTS));
        transport.finish_init();
        let pages = info.number("pages").unwrap_or(8192);
        println!("features={:#x} pages={pages}", features & 0xff);
        Self {
            transport,
            inflate,
            deflate,
            statistics,
            reports,
            told: None,
            buffer: [0; STATISTICS_BYTES],
            answers: 0,
            first: take_pages(pages),
            pages,
            inflated: 0,
        }
    }

    /// One request's worth towards the device's target.
    fn follow_target(&mut self) {
        let target: u32 = match self.transport.read_config_space(TARGET) {
            Ok(target) => target,
            Err(error) => panic!("the device's target: {error}"),
        };
        let target = u64::from(target).min(self.pages);
        if target == self.inflated {
            return;
        }
        let inflates = target > self.inflated;
        let count = target.abs_diff(self.inflated).min(PAGES_PER_REQUEST as u64);
        let after = if inflates {
            self.inflated + count
        } else {
            self.inflated - count
        };
        let low = after.min(self.inflated);
        let queue = if inflates {
            &mut self.inflate
        } else {
            &mut self.deflate
        };
        // From the last to the first, as a kernel takes pages from the end of a free block.
        let mut list = [0; PAGES_PER_REQUEST * 4];
        for (index, number) in list.chunks_exact_mut(4).take(count as usize).enumerate() {
            let page = self.first / PAGE_BYTES + low + count - 1 - index as u64;
            number.copy_from_slice(&(page as u32).to_le_bytes());
        }
        exchange(
            queue,
            &mut self.transport,
            &[&list[..count as usize * 4]],
            &mut [],
        );
        self.inflated = after;
        let written = self.transport.write_config_space(ACTUAL, after as u32);
        assert!(
            written.is_ok(),
            "the device's count of pages cannot be written"
        );
        if after == target {
            println!("balloon={after}");
        }
    }

    /// Gives the device its buffer, at first and whenever it has given it back.
    fn tell_statistics(&mut self) {
        if let Some(token) = self.told {
            if self.statistics.peek_used().is_none() {
                return;
            }
            // SAFETY: the buffer that was added under this token.
            let popped = unsafe { self.statistics.pop_used(token, &[&self.buffer], &mut []) };
            assert!(popped.is_ok(), "the device gave another buffer back");
            self.answers += 1;
        }
        let free = (self.pages - self.inflated) * PAGE_BYTES;
        let entries = [
            (FREE, free),
            (TOTAL, self.pages * PAGE_BYTES),
            (MINOR_FAULTS, self.answers),
        ];
        for (place, (tag, value)) in self.buffer.chunks_exact_mut(10).zip(entries) {
            place[..2].copy_from_slice(&tag.to_le_bytes());
            place[2..].copy_from_slice(&value.to_le_bytes());
        }
        // SAFETY: the buffer is left alone until the device has given it back.
        match unsafe { self.statistics.add(&[&self.buffer], &mut []) } {
            Ok(token) => self.told = Some(token),
            Err(error) => panic!("cannot give the device its buffer: {error}"),
        }
        self.transport.notify(STATISTICS);
    }

    fn address(&self, page: u64) -> u64 {
        self.first + page * PAGE_BYTES
    }

    fn touch(&self) {
        for page in self.inflated..self.pages {
            // SAFETY: a page that the heap has given us.
            unsafe { write64(self.address(page), MARK | page) };
        }
        println!("touched={}", self.pages - self.inflated);
    }

    fn check(&self) {
        let (mut empty, mut held) = (0, 0);
        for page in 0..self.pages {
            match read64(self.address(page)) {
                0 => empty += 1,
                mark if mark == MARK | page => held += 1,
                other => panic!("page {page} begins with {other:#x}"),
            }
        }
        println!("empty={empty} held={held}");
    }

    fn report(&mut self) {
        let Some(queue) = &mut self.reports else {
            panic!("the device takes no reports")
        };
        let mut page = 0;
        while page < self.pages {
            let mut ranges: [&mut [u8]; RANGES_PER_REPORT] = Default::default();
            let mut count = 0;
            for range in &mut ranges {
                let pages = PAGES_PER_RANGE.min(self.pages - page);
                if pages == 0 {
                    break;
                }
                let start = (self.first + page * PAGE_BYTES) as *mut u8;
                // SAFETY: pages that the heap has given us, each in one range of the report.
                *range = unsafe {
                    core::slice::from_raw_parts_mut(start, (pages * PAGE_BYTES) as usize)
                };
                (page, count) = (page + pages, count + 1);
            }
            exchange(queue, &mut self.transport, &[], &mut ranges[..count]);
        }
        println!("reported={page}");
    }
}

/// Sends a request and waits for its answer.
fn exchange<'a>(
    queue: &mut Queue,
    transport: &mut MmioTransport<'static>,
    readable: &'a [&'a [u8]],
    writable: &'a mut [&'a mut [u8]],
) {
    if let Err(error) = queue.add_notify_wait_pop(readable, writable, transport) {
        panic!("a request failed: {error}");
    }
}
