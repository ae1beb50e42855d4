//! What an interface has done, and the handle to watch and limit it while it runs.

use crate::config::RateLimit;
use crate::devices::virtio::Interrupt;
use crate::devices::virtio::rate_limiter::RateLimiter;
use serde::Serialize;
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

/// Counts of one direction since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DirectionStats {
    /// Frames that came through. A TCP segment larger than the MTU is one.
    pub frames: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Frames that were too long for the guest's buffers, or that it had no buffers for in time.
    pub drops: u64,
    /// Frames that were malformed or that the other side refused.
    pub errors: u64,
    /// Times that the rate limit held frames back.
    pub throttled: u64,
    /// For how long it did, in microseconds.
    pub throttled_us: u64,
}

/// Counts of an interface since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NetStats {
    /// Towards the guest.
    pub receive: DirectionStats,
    /// From the guest.
    pub transmit: DirectionStats,
    /// Notifications by the driver.
    pub notifications: u64,
    /// Interrupts to the driver.
    pub interrupts: u64,
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
        DirectionStats {
            frames: read(&self.counters.frames),
            bytes: read(&self.counters.bytes),
            drops: read(&self.counters.drops),
            errors: read(&self.counters.errors),
            throttled: throttled.events,
            throttled_us: u64::try_from(throttled.time.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// What a device shares with its workers and handles.
pub(super) struct Shared {
    pub receive: Flow,
    pub transmit: Flow,
    pub notifications: AtomicU64,
    /// The features that frames towards the guest may make use of, as the driver has set them last.
    pub offloads: AtomicU64,
    /// The transport's, from the first activation on.
    pub interrupt: OnceLock<Arc<Interrupt>>,
}

impl Shared {
    pub fn new(receive: RateLimit, transmit: RateLimit) -> Self {
        Self {
            receive: Flow::new(receive),
            transmit: Flow::new(transmit),
            notifications: AtomicU64::new(0),
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
        NetStats {
            receive: self.0.receive.stats(),
            transmit: self.0.transmit.stats(),
            notifications: self.0.notifications.load(Ordering::Relaxed),
            interrupts: self.0.interrupt.get().map_or(0, |line| line.raised()),
        }
    }

    /// Replaces the limit of one direction, from now on.
    pub fn set_rate_limit(&self, direction: Direction, limit: RateLimit) {
        match direction {
            Direction::Receive => self.0.receive.limiter.set(limit),
            Direction::Transmit => self.0.transmit.limiter.set(limit),
        }
    }
}
