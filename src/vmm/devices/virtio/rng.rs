//! Entropy source (virtio 1.2 §5.4): fills buffers from the host's random number generator.

use super::rate_limiter::{Gate, RateLimiter, Take};
use super::{
    Activation, Broken, DeviceSpec, DeviceState, DeviceType, Drained, Fate, Halted, Interrupt,
    NoEvents, Orders, QueueState, Server, VirtioDevice, Virtqueue, Worker, WorkerThread,
};
use crate::config::RngStats;
use crate::config::{Rate, RateLimit};
use crate::thread::ThreadKind;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const QUEUE_SIZE: u16 = 64;
/// A driver asks for some bytes at a time; more than this in one request is cut, which §5.4.6 allows.
const REQUEST_BYTES: usize = 4096;
/// Requests in a second, and at once: far more than a guest needs that seeds its generator all the time.
const PER_SECOND: u64 = 1000;
const BURST: u64 = 256;
/// Random bytes in a second, and at once. A processor makes them a thousand times as fast.
const BYTES_PER_SECOND: u64 = 256 << 10;
const BURST_BYTES: u64 = 64 << 10;

/// Counters behind [`RngStats`].
struct Shared {
    limiter: RateLimiter,
    requests: AtomicU64,
    bytes: AtomicU64,
    notifications: AtomicU64,
    /// That of the transport, from the first activation on.
    interrupt: OnceLock<Arc<Interrupt>>,
}

impl Shared {
    fn new(limiter: RateLimiter) -> Self {
        Self {
            limiter,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
            interrupt: OnceLock::new(),
        }
    }
}

/// Watches an entropy source while its guest runs.
#[derive(Clone)]
pub struct RngHandle(Arc<Shared>);

impl RngHandle {
    /// The counts so far.
    pub fn stats(&self) -> RngStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = RngStats::default();
        stats.requests = read(&self.0.requests);
        stats.bytes = read(&self.0.bytes);
        stats.notifications = read(&self.0.notifications);
        stats.interrupts = self.0.interrupt.get().map_or(0, |line| line.raised());
        stats.throttled = self.0.limiter.throttled().events;
        stats
    }
}

/// An entropy source that answers as many requests in a second and gives as many bytes as its limit allows.
#[derive(Clone, Copy, Debug)]
pub struct RngSpec {
    limit: RateLimit,
}

impl RngSpec {
    /// A limit of the caller's.
    pub fn limited(limit: RateLimit) -> Self {
        Self { limit }
    }
}

impl Default for RngSpec {
    /// A thousand requests and 256 KiB in a second, which is more than any guest has a use for.
    fn default() -> Self {
        let rate = |rate, burst| Rate::per_second(rate).map(|rate| rate.burst(burst)).ok();
        Self::limited(RateLimit {
            operations: rate(PER_SECOND, BURST),
            bandwidth: rate(BYTES_PER_SECOND, BURST_BYTES),
        })
    }
}

impl DeviceSpec for RngSpec {
    type Device = Rng;
    type Handle = RngHandle;
    type Error = NoEvents;

    fn build(self) -> Result<(Rng, RngHandle), NoEvents> {
        let worker = Worker::new("rng", ThreadKind::Rng);
        let device = Rng {
            worker: worker.map_err(NoEvents::of("events for the entropy source"))?,
            shared: Arc::new(Shared::new(RateLimiter::new(self.limit))),
        };
        let handle = RngHandle(device.shared.clone());
        Ok((device, handle))
    }
}

/// The device. It has one queue and no configuration.
pub struct Rng {
    worker: Worker<QueueServer>,
    shared: Arc<Shared>,
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> DeviceType {
        DeviceType::Rng
    }

    fn name(&self) -> &str {
        "rng"
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation {
            queues, interrupt, ..
        } = activation;
        let Some(queue) = queues.into_iter().flatten().next() else {
            return Ok(());
        };
        let shared = self.shared.clone();
        let _ = shared.interrupt.set(interrupt.clone());
        let gate = shared.limiter.gate()?;
        let server = QueueServer {
            queue,
            gate,
            shared,
        };
        self.worker.work(server, &interrupt)
    }

    fn halt(&mut self) -> Halted {
        let queue = self.worker.take().map(|server| server.queue);
        Halted::new(queue, 1, DeviceState::Rng)
    }

    fn look(&self) -> (Vec<Option<QueueState>>, DeviceState) {
        let queue = self.worker.look(|server| server.queue.state());
        (vec![queue], DeviceState::Rng)
    }

    fn limiters(&self) -> Vec<&RateLimiter> {
        vec![&self.shared.limiter]
    }

    fn reset(&mut self) {}

    fn workers(&mut self) -> Vec<&mut dyn WorkerThread> {
        vec![&mut self.worker]
    }
}

/// The queue with all that its thread needs to serve it.
struct QueueServer {
    queue: Virtqueue,
    gate: Gate,
    shared: Arc<Shared>,
}

/// What keeps it from answering more.
struct Throttled;

impl Server for QueueServer {
    type Failure = Broken;

    fn serve(&mut self, orders: &Orders) -> Result<(), Broken> {
        while orders.are_to_work() {
            let drained = self.turn()?;
            self.wait(&drained, orders);
        }
        Ok(())
    }
}

impl QueueServer {
    /// Answers what there is, but no more than a queue full, so that a driver that never ceases to ask cannot
    /// keep the device from being reset.
    fn turn(&mut self) -> Result<Drained<Throttled>, Broken> {
        let Self {
            queue,
            gate,
            shared,
        } = self;
        let mut bytes = [0; REQUEST_BYTES];
        let most = queue.size().into();
        queue.drain(most, |queue, chain| {
            let wanted = chain.writable_bytes().min(REQUEST_BYTES as u64) as usize;
            if gate.take(1, wanted as u64) != Take::Ready {
                return Ok(Fate::PutBack(Throttled));
            }
            // From an initialized generator getrandom returns at once and, up to 256 bytes, in full.
            let filled = getrandom(&mut bytes[..wanted], GetRandomFlags::empty()).unwrap_or(0);
            let written = chain.write(queue.memory(), 0, &bytes[..filled])?;
            shared.requests.fetch_add(1, Ordering::Relaxed);
            shared.bytes.fetch_add(written as u64, Ordering::Relaxed);
            Ok(Fate::Answered(written as u32))
        })
    }

    fn wait(&self, drained: &Drained<Throttled>, orders: &Orders) {
        let next = match drained {
            Drained::Waits(Throttled) => self.gate.timer(),
            _ => self.queue.notified().as_fd(),
        };
        // With work left this only looks what has come.
        let until = match drained {
            Drained::Portion => Until::Now,
            _ => Until::Forever,
        };
        let _ = wait::any([orders.as_fd(), next].map(Slot::readable), until);
        let notified = self.queue.notified().take();
        (self.shared.notifications).fetch_add(notified, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{Subject, contract_tests, place};
    use super::super::fake_driver::{BUFFERS, FakeDriver, NEXT, WRITE};
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    struct Entropy(FakeDriver);

    impl Subject for Entropy {
        const QUEUE: usize = 0;
        const DESCRIPTORS: u16 = 2;

        fn ready() -> Self {
            let (device, _) = RngSpec::limited(RateLimit::NONE).build().unwrap();
            Self(FakeDriver::ready(Box::new(device)))
        }

        fn driver(&mut self) -> &mut FakeDriver {
            &mut self.0
        }

        fn describe(&mut self, number: u16, head: u16) {
            let at = place(number);
            self.0.put(at, &[0; 0x1000 + 8]);
            self.0.describe(0, head, (at, 32, WRITE | NEXT, head + 1));
            self.0.describe(0, head + 1, (at + 0x1000, 8, WRITE, 0));
        }

        fn check(&mut self, number: u16, written: u32) {
            assert_eq!(written, 40);
            assert_ne!(self.0.bytes(place(number), 32), [0; 32]);
        }
    }

    contract_tests!(entropy, super::Entropy);

    #[test]
    fn a_guest_that_never_ceases_to_ask_is_slowed_down_and_can_be_reset() {
        let (device, handle) = RngSpec::default().build().unwrap();
        let mut driver = FakeDriver::ready(Box::new(device));
        for _ in 0..16 {
            driver.send(0, &[(BUFFERS, 4096, WRITE)]);
            driver.used(0);
        }
        let (ram, stop) = (driver.ram.clone(), Arc::new(AtomicBool::new(false)));
        let flood = {
            let stop = stop.clone();
            std::thread::spawn(move || FakeDriver::flood(&ram, 16, &stop))
        };
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) || handle.stats().throttled == 0 {
            driver.write(0x50, 0);
            assert!(since.elapsed() < Duration::from_secs(10), "never throttled");
        }
        let (answered, seconds) = (handle.stats().requests, since.elapsed().as_secs_f64());
        let most = (BURST_BYTES as f64 + BYTES_PER_SECOND as f64 * (seconds + 0.1)) / 4096.0;
        assert!(answered as f64 <= most, "{answered} in {seconds} s");
        driver.reset();
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    }
}
