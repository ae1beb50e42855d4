//! What an interface has done, and the handle to watch and limit it while it runs.

use crate::config::{DirectionStats, NetStats, RateLimit};
use crate::devices::virtio::Interrupt;
use crate::devices::virtio::rate_limiter::RateLimiter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A direction, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards the guest.
    Receive,
    /// From the guest.
    Transmit,
}

#[derive(Default)]
pub(super) struct Counters {
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
    pub drops: AtomicU64,
    pub errors: AtomicU64,
}

/// Adds to a counter that only people read.
pub(super) fn count(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// One direction's counters and limit, shared by its workers and the handles.
pub(super) struct Flow {
    pub counters: Counters,
    pub limiter: RateLimiter,
}

impl Flow {
    fn new(limit: RateLimit) -> Self {
        Self {
            counters: Counters::default(),
            limiter: RateLimiter::new(limit),
        }
    }

    fn stats(&self) -> DirectionStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let throttled = self.limiter.throttled();
        let mut stats = DirectionStats::default();
        stats.frames = read(&self.counters.frames);
        stats.bytes = read(&self.counters.bytes);
        stats.drops = read(&self.counters.drops);
        stats.errors = read(&self.counters.errors);
        stats.throttled = throttled.events;
        stats.throttled_us = u64::try_from(throttled.time.as_micros()).unwrap_or(u64::MAX);
        stats
    }
}

/// What a device shares with its workers and handles.
pub(super) struct Shared {
    pub receive: Flow,
    pub transmit: Flow,
    pub notifications: AtomicU64,
    pub poll_ns: AtomicU64,
    /// The host's kernel serves it, which counts nothing here.
    pub is_kernels: bool,
    /// The features that frames towards the guest may make use of, as the driver has set them last.
    pub offloads: AtomicU64,
    /// The transport's, from the first activation on.
    pub interrupt: OnceLock<Arc<Interrupt>>,
}

impl Shared {
    pub fn new(receive: RateLimit, transmit: RateLimit, is_kernels: bool) -> Self {
        Self {
            receive: Flow::new(receive),
            transmit: Flow::new(transmit),
            notifications: AtomicU64::new(0),
            poll_ns: AtomicU64::new(0),
            is_kernels,
            offloads: AtomicU64::new(0),
            interrupt: OnceLock::new(),
        }
    }
}

/// Watches an interface, and limits it, while its guest runs.
#[derive(Clone)]
pub struct NetHandle(pub(super) Arc<Shared>);

impl NetHandle {
    /// The counts so far.
    pub fn stats(&self) -> NetStats {
        let mut stats = NetStats::default();
        stats.receive = self.0.receive.stats();
        stats.transmit = self.0.transmit.stats();
        stats.notifications = self.0.notifications.load(Ordering::Relaxed);
        stats.poll_us = self.0.poll_ns.load(Ordering::Relaxed) / 1000;
        stats.interrupts = self.0.interrupt.get().map_or(0, |line| line.raised());
        stats
    }

    /// Whether the host's kernel serves it, which keeps to no limit and counts nothing here.
    pub fn is_the_kernels(&self) -> bool {
        self.0.is_kernels
    }

    /// Replaces the limit of one direction, from now on.
    pub fn set_rate_limit(&self, direction: Direction, limit: RateLimit) {
        match direction {
            Direction::Receive => self.0.receive.limiter.set(limit),
            Direction::Transmit => self.0.transmit.limiter.set(limit),
        }
    }
}
