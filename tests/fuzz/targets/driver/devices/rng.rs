//! An entropy source.

use super::super::subject::{Limit, Part, Subject};
use kvmlet_vmm::devices::virtio::{DeviceSpec, VirtioDevice, rng};

/// The most that is given at a time, in bytes.
const LARGEST: u64 = 4096;

pub struct Rng {
    handle: rng::RngHandle,
    limit: Limit,
}

/// One as the first bytes of an input want it.
pub fn rng(header: [u8; 8]) -> (Box<dyn VirtioDevice>, Rng) {
    let limit = Limit::new(header[2]);
    let (device, handle) = rng::RngSpec::limited(limit.limit).build().expect("events");
    (Box::new(device), Rng { handle, limit })
}

impl Subject for Rng {
    fn request(&self, _: u32, [count, bytes @ ..]: [u8; 8]) -> Vec<Part> {
        let sizes = bytes.iter().take(usize::from(count & 7) + 1);
        sizes
            .map(|size| Part::writable(u32::from(*size) * u32::from(*size)))
            .collect()
    }

    fn answers(&self, queue: u32) -> bool {
        queue == 0
    }

    fn lift_limits(&mut self) -> bool {
        !self.limit.is_low()
    }

    fn check(&mut self) {
        let stats = self.handle.stats();
        self.limit.check(stats.requests, stats.bytes, LARGEST);
    }
}
