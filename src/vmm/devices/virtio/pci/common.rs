//! The registers that all devices have (virtio 1.2 §4.1.4.3).

use super::PciTransport;

// Offsets. Fields of 64 bits are two of 32.
pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
pub(super) const DEVICE_FEATURE: u64 = 0x04;
pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
pub(super) const DRIVER_FEATURE: u64 = 0x0c;
pub(super) const CONFIG_VECTOR: u64 = 0x10;
pub(super) const NUM_QUEUES: u64 = 0x12;
pub(super) const STATUS: u64 = 0x14;
pub(super) const GENERATION: u64 = 0x15;
pub(super) const QUEUE_SELECT: u64 = 0x16;
pub(super) const QUEUE_SIZE: u64 = 0x18;
pub(super) const QUEUE_VECTOR: u64 = 0x1a;
pub(super) const QUEUE_ENABLE: u64 = 0x1c;
pub(super) const QUEUE_NOTIFY: u64 = 0x1e;
pub(super) const QUEUE_DESC: u64 = 0x20;
pub(super) const QUEUE_DRIVER: u64 = 0x28;
pub(super) const QUEUE_DEVICE: u64 = 0x30;
/// Behind the last field.
const END: u64 = 0x38;

/// Bytes of a field; §4.1.3.1: it is accessed as a whole, or else nothing is.
fn width(offset: u64) -> usize {
    match offset {
        STATUS | GENERATION => 1,
        CONFIG_VECTOR | NUM_QUEUES | QUEUE_SELECT..=QUEUE_NOTIFY if offset.is_multiple_of(2) => 2,
        offset if offset < END && offset.is_multiple_of(4) => 4,
        _ => 0,
    }
}

impl PciTransport {
    pub(super) fn read_common(&mut self, offset: u64, data: &mut [u8]) {
        if data.len() == 8 && matches!(offset, QUEUE_DESC | QUEUE_DRIVER | QUEUE_DEVICE) {
            let (low, high) = data.split_at_mut(4);
            self.read_common(offset, low);
            self.read_common(offset + 4, high);
        } else if data.len() == width(offset) {
            let value = self.read_field(offset).to_le_bytes();
            data.copy_from_slice(&value[..data.len()]);
        }
    }

    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) {
        if data.len() == 8 && matches!(offset, QUEUE_DESC | QUEUE_DRIVER | QUEUE_DEVICE) {
            let (low, high) = data.split_at(4);
            self.write_common(offset, low);
            self.write_common(offset + 4, high);
        } else if data.len() == width(offset) {
            let mut value = [0; 4];
            value[..data.len()].copy_from_slice(data);
            self.write_field(offset, u32::from_le_bytes(value));
        }
    }

    fn read_field(&mut self, offset: u64) -> u32 {
        let selection = self.session.selection;
        let address = |address: u64, at: u64| (address >> (8 * (at & 4))) as u32;
        match offset {
            DEVICE_FEATURE_SELECT => selection.device_features,
            DEVICE_FEATURE => self.session.selected_device_features(),
            DRIVER_FEATURE_SELECT => selection.driver_features,
            DRIVER_FEATURE => self.session.selected_driver_features(),
            CONFIG_VECTOR => self.messages.vector(None).into(),
            NUM_QUEUES => self.session.device().queue_sizes().len() as u32,
            STATUS => self.session.status(),
            GENERATION => self.session.generation() & 0xff,
            QUEUE_SELECT => selection.queue,
            QUEUE_SIZE => self.session.of_selected_queue(|queue| queue.size),
            QUEUE_VECTOR => self.messages.vector(Some(selection.queue as u16)).into(),
            QUEUE_ENABLE => self.session.of_selected_queue(|queue| queue.ready.into()),
            QUEUE_NOTIFY => selection.queue,
            _ => self.session.of_selected_queue(|queue| match offset & !4 {
                QUEUE_DESC => address(queue.descriptors, offset),
                QUEUE_DRIVER => address(queue.driver, offset),
                _ => address(queue.device, offset),
            }),
        }
    }

    fn write_field(&mut self, offset: u64, value: u32) {
        let queue = self.session.selection.queue;
        match offset {
            DEVICE_FEATURE_SELECT => self.session.selection.device_features = value,
            DRIVER_FEATURE_SELECT => self.session.selection.driver_features = value,
            DRIVER_FEATURE => self.session.accept_selected_features(value),
            CONFIG_VECTOR => self.messages.set_vector(None, value as u16),
            STATUS => self.write_status(value),
            QUEUE_SELECT => self.session.selection.queue = value & 0xffff,
            QUEUE_VECTOR => self.messages.set_vector(Some(queue as u16), value as u16),
            // It is never taken away but by a reset (§4.1.4.3.2).
            QUEUE_ENABLE if value == 1 => self.session.set_queue_ready(queue, true),
            _ => self.write_queue_field(offset, value),
        }
    }

    fn write_status(&mut self, value: u32) {
        self.session.write_status(value);
        if value == 0 {
            self.messages.forget_vectors();
        }
    }

    fn write_queue_field(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.session.queue_to_set_up(self.session.selection.queue) else {
            return;
        };
        let field = match offset & !4 {
            _ if offset == QUEUE_SIZE => return queue.size = value,
            QUEUE_DESC => &mut queue.descriptors,
            QUEUE_DRIVER => &mut queue.driver,
            QUEUE_DEVICE => &mut queue.device,
            _ => return,
        };
        let shift = 8 * (offset & 4);
        *field = *field & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }
}
