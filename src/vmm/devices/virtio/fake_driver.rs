//! A guest driver for unit tests: it can follow the rules, and break each of them.

use super::pci::fake;
use super::{MmioTransport, Transport, VirtioDevice};
use crate::memory::{Backing, GuestRam};
use kvmlet_sys::event::Event;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Descriptor flags (virtio 1.2 §2.7.5).
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Where queue number 0 lies; each further queue has its place [`QUEUE_STRIDE`] higher.
const QUEUES: u64 = 0x1_0000;
const QUEUE_STRIDE: u64 = 0x1_0000;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x8000;
/// Buffers that tests use freely.
pub const BUFFERS: u64 = 0x10_0000;
const RAM_BYTES: usize = 8 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// A descriptor: address, bytes, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// The driver side of one device.
pub struct FakeDriver {
    pub transport: Box<dyn Transport>,
    /// Registers are a function's, by what those of MMIO do.
    is_function: bool,
    pub ram: GuestRam,
    pub line: Event,
    size: u16,
    avail: Vec<u16>,
    used_seen: Vec<u16>,
}

impl FakeDriver {
    /// A device that has not been touched yet.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let ram = GuestRam::allocate(&[(GuestAddress(0), RAM_BYTES)], Backing::default()).unwrap();
        let line = Event::new().unwrap();
        let queues = device.queue_sizes().len();
        let is_function = fake::is_wanted();
        let transport: Box<dyn Transport> = match is_function {
            true => Box::new(fake::function(device, ram.clone(), &line)),
            false => {
                let line = line.try_clone().unwrap();
                Box::new(MmioTransport::new(device, ram.clone(), line).unwrap())
            }
        };
        Self {
            transport,
            is_function,
            ram,
            line,
            size: 16,
            avail: vec![0; queues],
            used_seen: vec![0; queues],
        }
    }

    /// A device that is ready, with all offered features but EVENT_IDX (so that every answer interrupts) and
    /// queues of 16 entries.
    pub fn ready(device: Box<dyn VirtioDevice>) -> Self {
        Self::ready_with(device, !0)
    }

    /// As [`ready`](Self::ready), with none but these features.
    pub fn ready_with(device: Box<dyn VirtioDevice>, features: u64) -> Self {
        let mut driver = Self::new(device);
        driver.start(features & !(1 << 29));
        driver
    }

    /// From nothing, or from a reset, to a device that runs.
    pub fn start(&mut self, features: u64) {
        assert!(self.negotiate(features));
        self.avail.fill(0);
        self.used_seen.fill(0);
        for queue in 0..self.avail.len() {
            let base = QUEUES + queue as u64 * QUEUE_STRIDE;
            for index in [base + AVAIL + 2, base + USED + 2] {
                self.ram.write_obj(0u16, GuestAddress(index)).unwrap();
            }
            self.set_up_queue(queue);
        }
        self.write(0x70, 15);
    }

    pub fn read(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        let (register, bytes) = self.register(register, 0);
        self.transport.read(register, &mut data[..bytes]);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, register: u64, value: u32) {
        let (register, bytes) = self.register(register, value);
        let _ = self
            .transport
            .write(register, &value.to_le_bytes()[..bytes]);
    }

    fn register(&self, register: u64, value: u32) -> (u64, usize) {
        match self.is_function {
            true => fake::register(register, value),
            false => (register, 4),
        }
    }

    /// Bytes of the configuration space.
    pub fn config(&mut self, offset: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let (register, _) = self.register(0x100, 0);
        self.transport.read(register + offset, &mut data);
        data
    }

    /// The 64 feature bits that the device offers.
    pub fn offered(&mut self) -> u64 {
        self.write(0x14, 0);
        let low = self.read(0x10);
        self.write(0x14, 1);
        u64::from(low) | u64::from(self.read(0x10)) << 32
    }

    /// Resets the device, and waits as §2.4.2 of virtio 1.2 has it: a busy host may keep a worker from standing still.
    pub fn reset(&mut self) {
        self.write(0x70, 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.read(0x70) != 0 {
            assert!(Instant::now() < deadline, "the reset does not end");
            std::thread::yield_now();
        }
    }

    /// Accepts what is offered within `mask`, up to FEATURES_OK; true if the device agrees.
    pub fn negotiate(&mut self, mask: u64) -> bool {
        self.write(0x70, 1);
        self.write(0x70, 3);
        let features = self.offered() & mask;
        for half in 0..2 {
            self.write(0x24, half);
            self.write(0x20, (features >> (32 * half)) as u32);
        }
        self.write(0x70, 11);
        self.read(0x70) & 8 != 0
    }

    pub fn set_up_queue(&mut self, queue: usize) {
        let base = QUEUES + queue as u64 * QUEUE_STRIDE;
        self.write(0x30, queue as u32);
        self.write(0x38, self.size.into());
        for (register, address) in [(0x80, base), (0x90, base + AVAIL), (0xa0, base + USED)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(0x44, 1);
        if self.is_function {
            fake::choose_vector(&mut *self.transport, queue as u16);
        }
    }

    /// After a reset: rings begin anew, empty.
    pub fn forget_queues(&mut self) {
        let bytes = QUEUE_STRIDE as usize * self.avail.len();
        self.put(QUEUES, &vec![0; bytes]);
        self.avail.fill(0);
        self.used_seen.fill(0);
    }

    pub fn needs_reset(&mut self) -> bool {
        self.read(0x70) & 64 != 0
    }

    /// Waits until the device says that it needs a reset.
    pub fn expect_needs_reset(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.needs_reset() {
            assert!(
                Instant::now() < deadline,
                "the device took what it should not"
            );
            std::thread::yield_now();
        }
    }

    /// Writes a descriptor table entry of a queue.
    pub fn describe(&self, queue: usize, index: u16, descriptor: Descriptor) {
        let table = QUEUES + queue as u64 * QUEUE_STRIDE;
        self.describe_at(table, index, descriptor);
    }

    /// Writes a descriptor into a table anywhere, for indirect ones.
    pub fn describe_at(&self, table: u64, index: u16, descriptor: Descriptor) {
        let (address, bytes, flags, next) = descriptor;
        let at = table + 16 * u64::from(index);
        self.ram.write_obj(address, GuestAddress(at)).unwrap();
        self.ram.write_obj(bytes, GuestAddress(at + 8)).unwrap();
        self.ram.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.ram.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// Makes the chain that begins at descriptor `head` available and notifies.
    pub fn offer(&mut self, queue: usize, head: u16) {
        self.offer_all(queue, &[head]);
    }

    /// Makes several chains available, then notifies once.
    pub fn offer_all(&mut self, queue: usize, heads: &[u16]) {
        self.offer_quietly(queue, heads);
        self.write(0x50, queue as u32);
    }

    /// Makes chains available and notifies only if the device has asked for it (EVENT_IDX, §2.7.10).
    pub fn offer_if_asked(&mut self, queue: usize, heads: &[u16]) {
        let old = self.avail[queue];
        self.offer_quietly(queue, heads);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let new = self.avail[queue];
        let event = self.avail_event(queue);
        if new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old) {
            self.write(0x50, queue as u32);
        }
    }

    fn avail_event(&self, queue: usize) -> u16 {
        let ring = QUEUES + queue as u64 * QUEUE_STRIDE + USED;
        let place = GuestAddress(ring + 4 + 8 * u64::from(self.size));
        self.ram
            .load(place, std::sync::atomic::Ordering::SeqCst)
            .unwrap()
    }

    fn offer_quietly(&mut self, queue: usize, heads: &[u16]) {
        let ring = QUEUES + queue as u64 * QUEUE_STRIDE + AVAIL;
        for head in heads {
            let slot = ring + 4 + 2 * u64::from(self.avail[queue] % self.size);
            self.ram.write_obj(*head, GuestAddress(slot)).unwrap();
            self.avail[queue] = self.avail[queue].wrapping_add(1);
        }
        self.set_avail_index(queue, self.avail[queue]);
    }

    /// Asks for an interrupt when the device has used this much (EVENT_IDX), or for none (its flag).
    pub fn set_used_event(&self, queue: usize, index: u16) {
        let ring = QUEUES + queue as u64 * QUEUE_STRIDE + AVAIL;
        let at = GuestAddress(ring + 4 + 2 * u64::from(self.size));
        self.ram.write_obj(index, at).unwrap();
    }

    /// Offers a request of queue 0 anew as soon as it is answered, all entries of the ring at once, until `stop` is
    /// set. For another thread than the driver's; the requests are those that were offered before.
    pub fn flood(ram: &GuestRam, size: u16, stop: &std::sync::atomic::AtomicBool) {
        use std::sync::atomic::Ordering;
        while !stop.load(Ordering::Relaxed) {
            let used: u16 = ram
                .load(GuestAddress(QUEUES + USED + 2), Ordering::SeqCst)
                .unwrap();
            let at = GuestAddress(QUEUES + AVAIL + 2);
            ram.store(used.wrapping_add(size), at, Ordering::SeqCst)
                .unwrap();
        }
    }

    /// Writes the index of the available ring as it is given, right or wrong.
    pub fn set_avail_index(&self, queue: usize, index: u16) {
        let ring = QUEUES + queue as u64 * QUEUE_STRIDE + AVAIL;
        self.ram
            .store(
                index,
                GuestAddress(ring + 2),
                std::sync::atomic::Ordering::SeqCst,
            )
            .unwrap();
    }

    /// Waits until the device asks to be notified of the request with that index (EVENT_IDX, §2.7.10).
    pub fn expect_avail_event(&self, queue: usize, index: u16) {
        let deadline = Instant::now() + DEADLINE;
        while self.avail_event(queue) != index {
            assert!(
                Instant::now() < deadline,
                "the device asks for no notification"
            );
            std::thread::yield_now();
        }
    }

    /// Chains the given buffers (readable ones first, by their flags) from descriptor 0 on, and offers them.
    pub fn send(&mut self, queue: usize, buffers: &[(u64, u32, u16)]) {
        for (index, (address, bytes, flags)) in (0u16..).zip(buffers) {
            let last = usize::from(index) + 1 == buffers.len();
            let flags = flags | if last { 0 } else { NEXT };
            self.describe(queue, index, (*address, *bytes, flags, index + 1));
        }
        self.offer(queue, 0);
    }

    /// The next answer, if there is one: head and bytes written.
    pub fn poll_used(&mut self, queue: usize) -> Option<(u32, u32)> {
        let ring = QUEUES + queue as u64 * QUEUE_STRIDE + USED;
        let index: u16 = self
            .ram
            .load(GuestAddress(ring + 2), std::sync::atomic::Ordering::SeqCst)
            .unwrap();
        if index == self.used_seen[queue] {
            return None;
        }
        let slot = ring + 4 + 8 * u64::from(self.used_seen[queue] % self.size);
        self.used_seen[queue] = self.used_seen[queue].wrapping_add(1);
        let head = self.ram.read_obj(GuestAddress(slot)).unwrap();
        let written = self.ram.read_obj(GuestAddress(slot + 4)).unwrap();
        Some((head, written))
    }

    /// Waits for the next answer, or for the device to need a reset.
    pub fn poll(&mut self, queue: usize) -> Option<(u32, u32)> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.poll_used(queue);
            if answer.is_some() || self.needs_reset() {
                return answer;
            }
            assert!(Instant::now() < deadline, "neither an answer nor a reset");
            std::thread::yield_now();
        }
    }

    /// Waits for the next answer.
    pub fn used(&mut self, queue: usize) -> (u32, u32) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = self.poll_used(queue) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "no answer; needs reset: {}",
                self.needs_reset()
            );
            std::thread::yield_now();
        }
    }

    /// Bytes at a guest address.
    pub fn bytes(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.ram
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    /// Puts bytes at a guest address.
    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.ram.write_slice(bytes, GuestAddress(address)).unwrap();
    }
}
