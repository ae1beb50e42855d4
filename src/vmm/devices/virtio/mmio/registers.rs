//! Which register is what (virtio 1.2 §4.2.2).

use super::MmioTransport;

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
    pub(super) fn read_register(&mut self, offset: u64) -> u32 {
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => MMIO_VERSION,
            DEVICE_ID => self.session.device().device_type() as u32,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => self.session.selected_device_features(),
            QUEUE_SIZE_MAX => self
                .session
                .of_selected_queue(|queue| queue.size_max.into()),
            QUEUE_READY => self.session.of_selected_queue(|queue| queue.ready.into()),
            INTERRUPT_STATUS => self.line.status(),
            STATUS => self.session.status(),
            CONFIG_GENERATION => self.session.generation(),
            // No shared memory regions: length and base of any are all ones (§4.2.2).
            SHARED_MEMORY_LENGTH_LOW..=SHARED_MEMORY_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    pub(super) fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURES_SELECT => self.session.selection.device_features = value,
            DRIVER_FEATURES_SELECT => self.session.selection.driver_features = value,
            DRIVER_FEATURES => self.session.accept_selected_features(value),
            QUEUE_SELECT => self.session.selection.queue = value,
            QUEUE_READY if value < 2 => {
                let queue = self.session.selection.queue;
                self.session.set_queue_ready(queue, value == 1);
            }
            QUEUE_NOTIFY => self.session.notify(value),
            INTERRUPT_ACKNOWLEDGE => self.line.acknowledge(value),
            STATUS => self.session.write_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    fn write_queue_register(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.session.queue_to_set_up(self.session.selection.queue) else {
            return;
        };
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
}

fn set_low(field: &mut u64, value: u32) {
    *field = *field >> 32 << 32 | u64::from(value);
}

fn set_high(field: &mut u64, value: u32) {
    *field = *field & 0xffff_ffff | u64::from(value) << 32;
}
