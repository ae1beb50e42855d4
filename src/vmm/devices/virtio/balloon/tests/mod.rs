//! The device under a fake driver, whose RAM shows what came back to the host.

mod configuration;
mod contract;
mod inflation;
mod malformed;
mod reporting;
mod statistics;

use super::*;
use crate::config::MemorySize;
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, WRITE};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
/// Where a driver like Linux's has it.
const REPORTS: usize = 3;
const PAGE: u64 = 4096;
/// First of the pages that tests give away: from 4 MiB to the end of the driver's 8 MiB.
const FIRST: u32 = 1024;
/// What is kept of pages that are gone.
const GONE: [u32; 0] = [];
const DEADLINE: Duration = Duration::from_secs(10);
/// For questions that are answered.
const PATIENCE: Duration = DEADLINE;

struct Rig {
    driver: FakeDriver,
    handle: BalloonHandle,
}

impl Rig {
    /// A device that no driver has touched, of a VM with 64 MiB.
    fn untouched(config: &str) -> Self {
        let config: Balloon = config.parse().unwrap();
        let spec = BalloonSpec {
            config: &config,
            memory: 64.mib(),
        };
        let (device, handle) = spec.build().unwrap();
        let driver = FakeDriver::new(Box::new(device));
        Self { driver, handle }
    }

    /// A device whose driver is ready and has accepted everything.
    fn ready(config: &str) -> Self {
        let mut rig = Self::untouched(config);
        rig.driver.start(!(1 << 29));
        rig
    }

    /// Puts page numbers into a buffer and sends it; waits for the answer.
    fn send_pages(&mut self, queue: usize, pages: &[u32]) {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.driver.put(BUFFERS, &bytes);
        self.driver.send(queue, &[(BUFFERS, bytes.len() as u32, 0)]);
        assert_eq!(self.driver.used(queue), (0, 0));
    }

    /// Writes a page's own number to each, so that all are resident.
    fn touch(&self, pages: std::ops::Range<u32>) {
        for page in pages {
            let at = GuestAddress(u64::from(page) * PAGE);
            self.driver.ram.write_obj(page, at).unwrap();
        }
    }

    /// The pages of a range that still hold their number.
    fn kept(&self, pages: std::ops::Range<u32>) -> Vec<u32> {
        let held = |page: &u32| {
            let at = GuestAddress(u64::from(*page) * PAGE);
            self.driver.ram.read_obj::<u32>(at).unwrap() == *page
        };
        pages.filter(held).collect()
    }

    fn resident_pages(&self) -> u64 {
        self.driver.ram.resident_bytes().unwrap() / PAGE
    }

    /// The device works, as one that was not broken does.
    fn expect_alive(&mut self) {
        assert!(!self.driver.needs_reset());
        self.touch(FIRST..FIRST + 1);
        self.send_pages(INFLATE, &[FIRST]);
        assert_eq!(self.kept(FIRST..FIRST + 1), GONE);
    }

    /// The driver starts over, and finds a device that works.
    fn expect_recovery(&mut self) {
        self.driver.reset();
        self.driver.start(!(1 << 29));
        self.expect_alive();
    }
}

/// Waits for what the worker does just after it has answered.
fn eventually(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !happened() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::yield_now();
    }
}
