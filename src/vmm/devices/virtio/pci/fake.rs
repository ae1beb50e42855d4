//! A driver of [tests](crate::devices::virtio::fake_driver) that knows the registers of MMIO, at a function.

use super::{CONFIG, ISR, NOTIFY, NOTIFY_BYTES, PciTransport, Transport, VECTORS, common};
use crate::devices::Device;
use crate::devices::pci::{Function, MessageLine};
use crate::devices::virtio::VirtioDevice;
use crate::memory::GuestRam;
use kvmlet_sys::event::Event;
use std::cell::Cell;

thread_local! {
    static WANTED: Cell<bool> = const { Cell::new(false) };
}

/// Has drivers that this thread makes meanwhile have functions.
pub fn over_pci(test: impl FnOnce()) {
    WANTED.set(true);
    test();
    WANTED.set(false);
}

pub fn is_wanted() -> bool {
    WANTED.get()
}

/// A line of a vector that raises an event.
struct Line(Event);

impl MessageLine for Line {
    fn route(&self, _message: Option<crate::devices::pci::Message>) {}

    fn signal(&self) {
        self.0.signal();
    }

    fn event(&self) -> Option<&Event> {
        Some(&self.0)
    }
}

/// A device behind a function that is switched on, with all vectors unmasked, which raise the event.
pub fn function(device: Box<dyn VirtioDevice>, ram: GuestRam, line: &Event) -> PciTransport {
    let lines = (0..PciTransport::lines(&*device))
        .map(|_| Box::new(Line(line.try_clone().unwrap())) as Box<dyn MessageLine>);
    let lines: Vec<_> = lines.collect();
    let count = lines.len() as u64;
    let mut function = PciTransport::new(device, ram, lines, 0xe000_0000).unwrap();
    function.write_config(4, &[6, 0]);
    for vector in 0..count {
        let _ = function.write(VECTORS + 16 * vector + 12, &[0; 4]);
    }
    let msix = function.msix;
    function.write_config(msix + 2, &[0, 0x80]);
    function
}

/// The register that does what one of MMIO does when that is written, or read, and its size in bytes.
pub fn register(mmio: u64, value: u32) -> (u64, usize) {
    match mmio {
        0x10 => (common::DEVICE_FEATURE, 4),
        0x14 => (common::DEVICE_FEATURE_SELECT, 4),
        0x20 => (common::DRIVER_FEATURE, 4),
        0x24 => (common::DRIVER_FEATURE_SELECT, 4),
        0x30 => (common::QUEUE_SELECT, 2),
        0x34 | 0x38 => (common::QUEUE_SIZE, 2),
        0x44 => (common::QUEUE_ENABLE, 2),
        0x50 => (NOTIFY + NOTIFY_BYTES * u64::from(value), 2),
        0x60 => (ISR, 1),
        0x70 => (common::STATUS, 1),
        0x80 | 0x84 | 0x90 | 0x94 | 0xa0 | 0xa4 => {
            let field = [
                common::QUEUE_DESC,
                common::QUEUE_DRIVER,
                common::QUEUE_DEVICE,
            ];
            (field[(mmio >> 4) as usize - 8] + (mmio & 4), 4)
        }
        0xfc => (common::GENERATION, 1),
        0x100.. => (CONFIG + mmio - 0x100, 4),
        other => panic!("register {other:#x}"),
    }
}

/// Has the queue that is set up interrupt by the vector of its number.
pub fn choose_vector(function: &mut dyn Transport, queue: u16) {
    let _ = function.write(common::QUEUE_VECTOR, &queue.to_le_bytes());
}
