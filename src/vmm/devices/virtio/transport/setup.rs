//! What a driver says of a queue before it is used (virtio 1.2 §4.1.5.1.3, §4.2.3.2).

use crate::memory::GuestRam;
use kvmlet_sys::event::Event;
use std::io;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// A queue as its driver sets it up.
pub struct QueueSetup {
    /// The most entries that it can have.
    pub size_max: u16,
    /// Entries that the driver has chosen.
    pub size: u32,
    /// The driver has set it up.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub driver: u64,
    /// Guest physical address of the used ring.
    pub device: u64,
    pub(super) notify: Event,
    pub(super) connected: bool,
    /// The driver has taken it away, and the device has not let go of it yet.
    pub(super) retires: bool,
}

impl QueueSetup {
    pub(super) fn new(size_max: u16) -> io::Result<Self> {
        let notify = Event::new()?;
        let (size, ready) = (u32::from(size_max), false);
        Ok(Self {
            size_max,
            size,
            ready,
            descriptors: 0,
            driver: 0,
            device: 0,
            notify,
            connected: false,
            retires: false,
        })
    }

    pub(super) fn reset(&mut self) {
        (self.size, self.ready, self.retires) = (u32::from(self.size_max), false, false);
        (self.descriptors, self.driver, self.device) = (0, 0, 0);
        // A notification from before the reset must not wake the device after it.
        self.notify.take();
    }

    /// Checks everything that the driver has said (§2.7: sizes are powers of two, parts are aligned and in
    /// RAM) and makes a queue of it.
    pub(super) fn build(&self, memory: &GuestRam, event_idx: bool) -> Option<Queue> {
        let size = u16::try_from(self.size)
            .ok()
            .filter(|size| *size <= self.size_max)?;
        if !size.is_power_of_two() {
            return None;
        }
        let entries = u64::from(size);
        for (address, align, bytes) in [
            (self.descriptors, 16, 16 * entries),
            (self.driver, 2, 6 + 2 * entries),
            (self.device, 4, 6 + 8 * entries),
        ] {
            if !address.is_multiple_of(align)
                || memory
                    .get_slice(GuestAddress(address), bytes as usize)
                    .is_err()
            {
                return None;
            }
        }
        let mut queue = Queue::new(self.size_max).ok()?;
        queue.try_set_size(size).ok()?;
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptors))
            .ok()?;
        queue
            .try_set_avail_ring_address(GuestAddress(self.driver))
            .ok()?;
        queue
            .try_set_used_ring_address(GuestAddress(self.device))
            .ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Some(queue)
    }
}
