//! The outside view of a socket device.

use super::table::Numbers;
use crate::config::VsockStats;
use crate::devices::virtio::Interrupt;
use kvmlet_sys::event::Event;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Counters behind [`VsockStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: AtomicU64,
    pub refused: AtomicU64,
    pub packets_from_guest: AtomicU64,
    pub bytes_from_guest: AtomicU64,
    pub packets_to_guest: AtomicU64,
    pub bytes_to_guest: AtomicU64,
    pub notifications: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What the front, its worker and the handles share.
pub(super) struct Shared {
    pub guest_cid: u64,
    pub counters: Counters,
    /// Only its worker has a use for it, and there is one at a time.
    pub numbers: Mutex<Numbers>,
    /// All connections are to be ended.
    interrupted: AtomicBool,
    /// Tells the worker of it.
    pub called: Event,
    /// The transport's, from the first activation on.
    pub interrupt: OnceLock<Arc<Interrupt>>,
}

impl Shared {
    pub fn new(guest_cid: u64) -> io::Result<Self> {
        Ok(Self {
            guest_cid,
            counters: Counters::default(),
            numbers: Mutex::default(),
            interrupted: AtomicBool::new(false),
            called: Event::new()?,
            interrupt: OnceLock::new(),
        })
    }

    pub fn set_connections(&self, number: usize) {
        let connections = &self.counters.connections;
        connections.store(number as u64, Ordering::Relaxed);
    }

    /// Whether connections are to be ended; that is taken note of.
    pub fn take_interruption(&self) -> bool {
        self.interrupted.swap(false, Ordering::AcqRel)
    }
}

/// A socket device in use, for whoever runs the VM. Clones are of the same device.
#[derive(Clone)]
pub struct VsockHandle(pub(super) Arc<Shared>);

impl VsockHandle {
    /// The guest's address.
    pub fn guest_cid(&self) -> u64 {
        self.0.guest_cid
    }

    /// Ends all connections at once and tells the guest's driver that they are gone (virtio 1.2 §5.10.6.7,
    /// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET), as when what it runs in was copied. What listens in the guest goes on.
    pub fn reset_transport(&self) {
        self.0.interrupted.store(true, Ordering::Release);
        self.0.called.signal();
    }

    /// The counts so far.
    pub fn stats(&self) -> VsockStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        let mut stats = VsockStats::default();
        stats.connections = get(&counters.connections);
        stats.refused = get(&counters.refused);
        stats.packets_from_guest = get(&counters.packets_from_guest);
        stats.bytes_from_guest = get(&counters.bytes_from_guest);
        stats.packets_to_guest = get(&counters.packets_to_guest);
        stats.bytes_to_guest = get(&counters.bytes_to_guest);
        stats.notifications = get(&counters.notifications);
        stats.interrupts = self.0.interrupt.get().map_or(0, |line| line.raised());
        stats
    }
}
