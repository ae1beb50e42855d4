//! Which register is what (virtio 1.2 §4.2.2).

use super::MmioTransport;
use super::negotiation::{DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use super::setup::QueueSetup;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const MMIO_VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"KVML");

// Register offsets (table 4.1).
pub(super) const MAGIC_VALUE: u64 = 0x000;
pub(super) const VERSION: u64 = 0x004;
pub(super) const DEVICE_ID: u64 = 0x008;
pub(super) const VENDOR_ID: u64 = 0x00c;
pub(super) const DEVICE_FEATURES: u64 = 0x010;
pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x014;
pub(super) const DRIVER_FEATURES: u64 = 0x020;
pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x024;
pub(super) const QUEUE_SELECT: u64 = 0x030;
pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
pub(super) const QUEUE_SIZE: u64 = 0x038;
pub(super) const QUEUE_READY: u64 = 0x044;
pub(super) const QUEUE_NOTIFY: u64 = 0x050;
pub(super) const INTERRUPT_STATUS: u64 = 0x060;
pub(super) const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;
pub(super) const STATUS: u64 = 0x070;
pub(super) const QUEUE_DESC_LOW: u64 = 0x080;
pub(super) const QUEUE_DESC_HIGH: u64 = 0x084;
pub(super) const QUEUE_DRIVER_LOW: u64 = 0x090;
pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x094;
pub(super) const QUEUE_DEVICE_LOW: u64 = 0x0a0;
pub(super) const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
pub(super) const SHARED_MEMORY_LENGTH_LOW: u64 = 0x0b0;
pub(super) const SHARED_MEMORY_BASE_HIGH: u64 = 0x0bc;
pub(super) const CONFIG_GENERATION: u64 = 0x0fc;
pub(super) const CONFIG: u64 = 0x100;

impl MmioTransport {
    fn selected(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(self.queue_select as usize)
    }

    pub(super) fn read_register(&mut self, offset: u64) -> u32 {
        self.look_after_halt();
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => MMIO_VERSION,
            DEVICE_ID => self.device.device_type() as u32,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.device_features(), self.device_features_select),
            QUEUE_SIZE_MAX => queue.map_or(0, |queue| queue.size_max.into()),
            QUEUE_READY => queue.map_or(0, |queue| queue.ready.into()),
            INTERRUPT_STATUS => self.interrupt.status(),
            STATUS => self.status(),
            CONFIG_GENERATION => self.interrupt.generation(),
            // No shared memory regions: length and base of any are all ones (§4.2.2).
            SHARED_MEMORY_LENGTH_LOW..=SHARED_MEMORY_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn status(&self) -> u32 {
        match self.interrupt.is_broken() || self.is_resetting() {
            true => self.status | NEEDS_RESET,
            false => self.status,
        }
    }

    pub(super) fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURES_SELECT => self.device_features_select = value,
            DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            DRIVER_FEATURES => self.accept_features(value),
            QUEUE_SELECT => self.queue_select = value,
            QUEUE_NOTIFY => {
                if let Some(queue) = self.queues.get(value as usize) {
                    // Cannot fail in a way that loses the signal.
                    queue.notify.signal();
                }
            }
            INTERRUPT_ACKNOWLEDGE => self.interrupt.acknowledge(value),
            STATUS => self.write_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    /// A queue is set up between FEATURES_OK and DRIVER_OK. Of a live one only QueueReady can be taken away
    /// (§4.2.3.2): a driver does that when it is about to go, so the whole device stops, until it is reset.
    fn write_queue_register(&mut self, offset: u64, value: u32) {
        if (offset, value) == (QUEUE_READY, 0) && self.status & DRIVER_OK != 0 {
            if let Some(queue) = self.selected() {
                queue.retires = true;
            }
            return self.stop();
        }
        let set_up = FEATURES_OK;
        if self.status & (set_up | DRIVER_OK | FAILED) != set_up {
            return;
        }
        let Some(queue) = self.selected() else {
            return;
        };
        if offset == QUEUE_READY {
            queue.ready = value == 1;
            return;
        }
        if queue.ready {
            return;
        }
        match offset {
            QUEUE_SIZE => queue.size = value,
            QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            QUEUE_DRIVER_LOW => set_low(&mut queue.driver, value),
            QUEUE_DRIVER_HIGH => set_high(&mut queue.driver, value),
            QUEUE_DEVICE_LOW => set_low(&mut queue.device, value),
            QUEUE_DEVICE_HIGH => set_high(&mut queue.device, value),
            _ => {}
        }
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & (DRIVER | FEATURES_OK) != DRIVER {
            return;
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => {}
        }
    }
}

fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_low(field: &mut u64, value: u32) {
    *field = *field >> 32 << 32 | u64::from(value);
}

fn set_high(field: &mut u64, value: u32) {
    *field = *field & 0xffff_ffff | u64::from(value) << 32;
}
