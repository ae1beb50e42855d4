//! A balloon with all that it can do, which may hold 48 MiB.

use super::super::Manners;
use super::super::ram::{BUFFERS, REGIONS};
use super::super::subject::{Part, Subject};
use kvmlet_spec::{Balloon as Config, MemorySize};
use kvmlet_vmm::devices::virtio::balloon::{BalloonHandle, BalloonSpec};
use kvmlet_vmm::devices::virtio::{DeviceSpec, VirtioDevice};
use std::thread::JoinHandle;
use std::time::Duration;

const PAGE_BYTES: u64 = 4096;
/// VIRTIO_BALLOON_F_STATS_VQ.
const STATISTICS: u64 = 1 << 1;

pub struct Balloon {
    handle: BalloonHandle,
    /// The queue whose buffer stays with the device, and those that are served.
    statistics: Option<u32>,
    served: u32,
    by_the_rules: bool,
    asking: Vec<JoinHandle<()>>,
}

/// One as the first bytes of an input want it, whose driver names only pages of buffers if it keeps to the rules.
pub fn balloon(header: [u8; 8]) -> (Box<dyn VirtioDevice>, Balloon) {
    let (device, handle) = BalloonSpec {
        config: &Config::default(),
        memory: 64.mib(),
    }
    .build()
    .expect("events");
    let Manners {
        features,
        by_the_rules,
        ..
    } = Manners::new(header, &device);
    let further = (features & (STATISTICS | 1 << 5)).count_ones();
    let balloon = Balloon {
        handle,
        statistics: (features & STATISTICS != 0).then_some(2),
        served: 2 + further,
        by_the_rules,
        asking: Vec::new(),
    };
    (Box::new(device), balloon)
}

impl Subject for Balloon {
    fn request(&self, queue: u32, choice: [u8; 8]) -> Vec<Part> {
        let [count, .., size] = choice;
        let count = u32::from(count) + 1;
        if queue >= 2 && Some(queue) != self.statistics && queue < self.served {
            return (0..count % 5 + 1)
                .map(|index| Part::writable(u32::from(size) * 97 * index))
                .collect();
        }
        let pages = (0..count).flat_map(|index| {
            let byte = choice[1 + index as usize % 7];
            let region = if byte & 1 == 0 {
                REGIONS[0]
            } else {
                REGIONS[1]
            };
            let room = (region.1 as u64 - BUFFERS) / PAGE_BYTES;
            let page = (region.0 + BUFFERS) / PAGE_BYTES
                + (u64::from(byte >> 1) + u64::from(index)) % room;
            match self.by_the_rules {
                true => page as u32,
                false => page as u32 ^ u32::from(size).pow(4) ^ index,
            }
            .to_le_bytes()
        });
        vec![Part::readable(pages.collect())]
    }

    fn answers(&self, queue: u32) -> bool {
        queue < self.served && Some(queue) != self.statistics
    }

    fn act(&mut self, [what, value, ..]: [u8; 8]) {
        let target = u64::from(value >> 1).mib();
        match what & 1 {
            0 => assert_eq!(self.handle.set_target(target).is_ok(), target <= 48.mib()),
            _ if self.asking.len() < 4 => {
                let handle = self.handle.clone();
                let ask = move || drop(handle.ask_guest(Duration::from_micros(100)));
                self.asking.push(std::thread::spawn(ask));
            }
            _ => {}
        }
    }

    fn lift_limits(&mut self) -> bool {
        true
    }

    /// What it gives back reads as zeroes, wherever that is.
    fn keeps_to_buffers(&self) -> bool {
        false
    }

    /// Lists that overlap name no pages that neither names.
    fn unit(&self) -> u64 {
        4
    }

    fn check(&mut self) {
        // All of them: what a thread on its way out still has would be taken for a leak.
        for asking in self.asking.drain(..) {
            asking.join().expect("the host's side");
        }
        let stats = self.handle.stats();
        assert_eq!(stats.actual_bytes, 0, "a reset empties the balloon");
        assert!(stats.reported_bytes % PAGE_BYTES == 0 && stats.inflated_bytes % PAGE_BYTES == 0);
    }
}
