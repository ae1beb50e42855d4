//! The MMIO transport, version 2 (virtio 1.2 §4.2).

use super::interrupt::Interrupt;
use super::queue::Virtqueue;
use super::{Activation, VirtioDevice};
use crate::devices::{Action, Device};
use crate::host::thread::{Beginning, OnStart, ThreadKind};
use crate::memory::GuestRam;
use std::io;
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

/// Size of a device's registers, in bytes.
pub const MMIO_BYTES: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"KVML");

/// Feature bits of the transport's own (§6).
const RING_INDIRECT_DESC: u64 = 1 << 28;
const RING_EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
const TRANSPORT_FEATURES: u64 = VERSION_1 | RING_INDIRECT_DESC | RING_EVENT_IDX;

/// Device status bits (§2.1).
mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

/// Register offsets (§4.2.2, table 4.1).
mod register {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub const QUEUE_SELECT: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHARED_MEMORY_LENGTH_LOW: u64 = 0x0b0;
    pub const SHARED_MEMORY_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Where a driver writes the number of a queue that it has filled; an ioeventfd spares the exit.
pub const QUEUE_NOTIFY_OFFSET: u64 = register::QUEUE_NOTIFY;

/// A short cut for notifications: while connected, a driver's write of a queue's number to
/// [`QUEUE_NOTIFY_OFFSET`] signals the queue's event without passing through the transport.
///
/// It is connected when the driver is ready, not before: a KVM that has ioeventfds takes some 14 ms longer
/// to end (its srcu_barrier), which a guest without virtio drivers should not pay for.
pub trait Doorbell: Send {
    /// Connects a queue.
    ///
    /// # Errors
    /// When the host refuses; notifications then take the long way, through [`Device::write`].
    fn connect(&mut self, queue: u32, event: &EventFd) -> io::Result<()>;

    /// Undoes [`connect`](Self::connect).
    fn disconnect(&mut self, queue: u32, event: &EventFd);
}

/// A queue as its driver sets it up.
struct QueueSetup {
    size_max: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
    notify: EventFd,
    connected: bool,
}

impl QueueSetup {
    fn new(size_max: u16) -> io::Result<Self> {
        let notify = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
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
        })
    }

    fn reset(&mut self) {
        (self.size, self.ready) = (u32::from(self.size_max), false);
        (self.descriptors, self.driver, self.device) = (0, 0, 0);
        // A notification from before the reset must not wake the device after it.
        let _ = self.notify.read();
    }

    /// Checks everything that the driver has said (§2.7: sizes are powers of two, parts are aligned and in
    /// RAM) and makes a queue of it.
    fn build(&self, memory: &GuestRam, event_idx: bool) -> Option<Queue> {
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

/// The registers of one device.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: GuestRam,
    interrupt: Arc<Interrupt>,
    doorbell: Option<Box<dyn Doorbell>>,
    status: u32,
    active: bool,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<QueueSetup>,
}

impl MmioTransport {
    /// Puts a device behind registers. Its interrupt raises `line`.
    ///
    /// # Errors
    /// When the host gives no events for its queues.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestRam, line: EventFd) -> io::Result<Self> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|size| QueueSetup::new(*size))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            interrupt: Arc::new(Interrupt::new(device.name(), line)),
            device,
            memory,
            doorbell: None,
            status: 0,
            active: false,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues,
        })
    }

    /// Spares notifications the way through the transport while the driver is ready.
    pub fn with_doorbell(mut self, doorbell: Box<dyn Doorbell>) -> Self {
        self.doorbell = Some(doorbell);
        self
    }

    /// Begins to start the threads that will serve the queues. Those that are not started here start when they
    /// are needed.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start_workers(&mut self, on_start: &Arc<OnStart>) -> io::Result<Vec<Beginning>> {
        let workers = self.device.workers().iter_mut();
        let begun = workers.filter_map(|worker| worker.start(on_start).transpose());
        begun.collect()
    }

    /// What the threads do that serve the queues.
    pub fn threads(&mut self) -> impl Iterator<Item = ThreadKind> {
        self.device.workers().iter().map(|worker| worker.kind())
    }

    /// The device behind the registers.
    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }

    fn device_features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    fn selected(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(self.queue_select as usize)
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.device.device_type() as u32,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.device_features(), self.device_features_select),
            register::QUEUE_SIZE_MAX => queue.map_or(0, |queue| queue.size_max.into()),
            register::QUEUE_READY => queue.map_or(0, |queue| queue.ready.into()),
            register::INTERRUPT_STATUS => self.interrupt.status(),
            register::STATUS => self.status(),
            register::CONFIG_GENERATION => self.interrupt.generation(),
            // No shared memory regions: length and base of any are all ones (§4.2.2).
            register::SHARED_MEMORY_LENGTH_LOW..=register::SHARED_MEMORY_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn status(&self) -> u32 {
        match self.interrupt.is_broken() {
            true => self.status | status::NEEDS_RESET,
            false => self.status,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            register::DEVICE_FEATURES_SELECT => self.device_features_select = value,
            register::DRIVER_FEATURES_SELECT => self.driver_features_select = value,
            register::DRIVER_FEATURES => self.accept_features(value),
            register::QUEUE_SELECT => self.queue_select = value,
            register::QUEUE_NOTIFY => {
                if let Some(queue) = self.queues.get(value as usize) {
                    // Cannot fail in a way that loses the signal.
                    let _ = queue.notify.write(1);
                }
            }
            register::INTERRUPT_ACKNOWLEDGE => self.interrupt.acknowledge(value),
            register::STATUS => self.write_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    /// A queue is set up between FEATURES_OK and DRIVER_OK. Of a live one only QueueReady can be taken away
    /// (§4.2.3.2): a driver does that when it is about to go, so the whole device stops, until it is reset.
    fn write_queue_register(&mut self, offset: u64, value: u32) {
        if (offset, value) == (register::QUEUE_READY, 0) && self.status & status::DRIVER_OK != 0 {
            self.stop();
            if let Some(queue) = self.selected() {
                queue.ready = false;
            }
            return;
        }
        let set_up = status::FEATURES_OK;
        if self.status & (set_up | status::DRIVER_OK | status::FAILED) != set_up {
            return;
        }
        let Some(queue) = self.selected() else {
            return;
        };
        if offset == register::QUEUE_READY {
            queue.ready = value == 1;
            return;
        }
        if queue.ready {
            return;
        }
        match offset {
            register::QUEUE_SIZE => queue.size = value,
            register::QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            register::QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            register::QUEUE_DRIVER_LOW => set_low(&mut queue.driver, value),
            register::QUEUE_DRIVER_HIGH => set_high(&mut queue.driver, value),
            register::QUEUE_DEVICE_LOW => set_low(&mut queue.device, value),
            register::QUEUE_DEVICE_HIGH => set_high(&mut queue.device, value),
            _ => {}
        }
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            return;
        }
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => {}
        }
    }

    /// §3.1.1: a driver adds bits in a fixed order, one or several at a time, and takes them away only by a
    /// reset. A bit that comes too early, or that the device does not grant, is not set.
    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        if self.status & !value != 0 || self.status & status::FAILED != 0 {
            return;
        }
        let mut before = 0;
        for bit in [
            status::ACKNOWLEDGE,
            status::DRIVER,
            status::FEATURES_OK,
            status::DRIVER_OK,
        ] {
            let added = value & !self.status & bit != 0;
            if added
                && self.status == before
                && (bit != status::FEATURES_OK || self.features_are_valid())
            {
                self.status |= bit;
                if bit == status::DRIVER_OK {
                    self.activate();
                }
            }
            before |= bit;
        }
        self.status |= value & status::FAILED;
    }

    /// A subset of what was offered, and a driver that knows virtio 1 (§6.1: there is no legacy interface).
    fn features_are_valid(&self) -> bool {
        self.driver_features & !self.device_features() == 0 && self.driver_features & VERSION_1 != 0
    }

    fn activate(&mut self) {
        self.interrupt.begin();
        let event_idx = self.driver_features & RING_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for setup in &self.queues {
            if !setup.ready {
                queues.push(None);
                continue;
            }
            let (Some(queue), Ok(notified)) = (
                setup.build(&self.memory, event_idx),
                setup.notify.try_clone(),
            ) else {
                return (self.interrupt).needs_reset(&"a queue was set up wrongly");
            };
            let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
            queues.push(Some(Virtqueue::new(queue, memory, interrupt, notified)));
        }
        let (features, interrupt) = (self.driver_features, self.interrupt.clone());
        match self.device.activate(Activation {
            features,
            queues,
            interrupt,
        }) {
            Ok(()) => {
                self.active = true;
                self.connect();
            }
            Err(error) => self.interrupt.needs_reset(&error),
        }
    }

    fn connect(&mut self) {
        let Some(doorbell) = &mut self.doorbell else {
            return;
        };
        for (number, queue) in (0u32..)
            .zip(&mut self.queues)
            .filter(|(_, queue)| queue.ready)
        {
            match doorbell.connect(number, &queue.notify) {
                Ok(()) => queue.connected = true,
                Err(error) => {
                    let what =
                        format_args!("notifications of queue {number} take the long way: {error}");
                    self.interrupt.complain(what);
                }
            }
        }
    }

    fn disconnect(&mut self) {
        let Some(doorbell) = &mut self.doorbell else {
            return;
        };
        for (number, queue) in (0u32..).zip(&mut self.queues) {
            if std::mem::take(&mut queue.connected) {
                doorbell.disconnect(number, &queue.notify);
            }
        }
    }

    fn stop(&mut self) {
        self.disconnect();
        if std::mem::take(&mut self.active) {
            self.device.reset();
        }
    }

    fn reset(&mut self) {
        self.stop();
        (self.status, self.driver_features, self.queue_select) = (0, 0, 0);
        (self.device_features_select, self.driver_features_select) = (0, 0);
        self.interrupt.reset();
        self.queues.iter_mut().for_each(QueueSetup::reset);
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

impl Device for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= register::CONFIG {
            self.device.read_config(offset - register::CONFIG, data);
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            // §4.2.2.2: registers are accessed by aligned 32-bit reads and writes only.
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if offset >= register::CONFIG {
            if self.status & status::DRIVER != 0 {
                self.device.write_config(offset - register::CONFIG, data);
            }
        } else if let (true, Ok(bytes)) = (offset.is_multiple_of(4), data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
        Action::None
    }
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
