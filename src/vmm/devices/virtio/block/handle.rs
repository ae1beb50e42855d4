//! The outside view of a disk in use: statistics, limits, resizing.

use super::Error;
use super::backend::Medium;
use super::layout::SECTOR_BYTES;
use super::request::Limits;
use crate::config::{BlockStats, RateLimit};
use crate::devices::virtio::Interrupt;
use crate::devices::virtio::rate_limiter::RateLimiter;
use crate::disk::Stamp;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// Counters behind [`BlockStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub flushes: AtomicU64,
    pub discards: AtomicU64,
    pub write_zeroes: AtomicU64,
    pub read_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub errors: AtomicU64,
    pub notifications: AtomicU64,
    pub poll_ns: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the front, its workers and the handles share.
pub(super) struct Shared {
    pub name: String,
    /// Owned by the device, so that a handle that is kept does not keep the disk locked.
    pub medium: Weak<dyn Medium>,
    pub identity: [u8; super::request::ID_BYTES],
    pub read_only: bool,
    pub discards: bool,
    pub capacity_sectors: AtomicU64,
    /// Whether writes may stay in a cache until a flush, as of now.
    pub writeback: AtomicBool,
    pub limiter: RateLimiter,
    pub counters: Counters,
    /// The longest that a worker looks for requests before it sleeps.
    pub poll: Duration,
    /// The transport's, from the first activation on.
    pub interrupt: OnceLock<Arc<Interrupt>>,
}

impl Shared {
    pub fn limits(&self) -> Limits {
        Limits {
            capacity_bytes: self.capacity_sectors.load(Ordering::Acquire) * SECTOR_BYTES,
            read_only: self.read_only,
            discards: self.discards,
        }
    }
}

/// A disk in use, for whoever runs the VM. Clones are of the same disk.
#[derive(Clone)]
pub struct BlockHandle(pub(super) Arc<Shared>);

impl BlockHandle {
    /// The name by which the guest most likely knows it: `vda` is the first.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The size that the guest sees, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.limits().capacity_bytes
    }

    /// By which the guest knows it, whatever its name: padded with zeros.
    pub fn identity(&self) -> [u8; super::request::ID_BYTES] {
        self.0.identity
    }

    /// Has what the guest has written be on the host's disk.
    ///
    /// # Errors
    /// When it cannot be.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.0.medium.upgrade() {
            Some(medium) if !self.0.read_only => medium.sync(),
            _ => Ok(()),
        }
    }

    /// When its file was written last, if it is one that tells.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let medium = self.0.medium.upgrade()?;
        medium.stamp().ok().flatten()
    }

    /// What it has done so far.
    pub fn stats(&self) -> BlockStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        let throttled = self.0.limiter.throttled();
        let mut stats = BlockStats::default();
        stats.reads = get(&counters.reads);
        stats.writes = get(&counters.writes);
        stats.flushes = get(&counters.flushes);
        stats.discards = get(&counters.discards);
        stats.write_zeroes = get(&counters.write_zeroes);
        stats.read_bytes = get(&counters.read_bytes);
        stats.written_bytes = get(&counters.written_bytes);
        stats.errors = get(&counters.errors);
        stats.throttled = throttled.events;
        stats.throttled_us = u64::try_from(throttled.time.as_micros()).unwrap_or(u64::MAX);
        stats.notifications = get(&counters.notifications);
        stats.poll_us = get(&counters.poll_ns) / 1000;
        stats.interrupts = self.0.interrupt.get().map_or(0, |line| line.raised());
        stats
    }

    /// Changes the rate limit; it holds at once.
    pub fn set_rate_limit(&self, limit: RateLimit) {
        self.0.limiter.set(limit);
    }

    /// Looks how large the file or device is now and tells the guest if that has changed. Returns the size
    /// that the guest sees, in bytes.
    ///
    /// # Errors
    /// When the size is not possible, and the guest keeps the old one; or when the VM is gone.
    pub fn resize(&self) -> Result<u64, Error> {
        let Some(medium) = self.0.medium.upgrade() else {
            let name = self.0.name.clone();
            return Err(Error::Gone { name });
        };
        let sectors = medium.bytes()? / SECTOR_BYTES;
        let bytes = sectors * SECTOR_BYTES;
        let change = || {
            let changed = self.0.capacity_sectors.swap(sectors, Ordering::AcqRel) != sectors;
            if changed {
                log::info!("{} is {bytes} bytes now", self.0.name);
            }
            changed
        };
        match self.0.interrupt.get() {
            Some(interrupt) => interrupt.change_config(change),
            None => drop(change()),
        }
        Ok(bytes)
    }
}
