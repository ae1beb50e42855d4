//! Entropy source (virtio 1.2 §5.4): fills buffers from the host's random number generator.

use super::{
    Activation, Broken, Chain, DeviceType, Interrupt, Stop, VirtioDevice, Virtqueue, Worker,
};
use crate::host::thread::ThreadKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

const QUEUE_SIZE: u16 = 64;
/// A driver asks for some bytes at a time; more than this in one request is cut, which §5.4.6 allows.
const REQUEST_BYTES: usize = 4096;

/// What an entropy source has given so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RngStats {
    /// Requests that were answered.
    pub requests: u64,
    /// Random bytes in the answers.
    pub bytes: u64,
    /// Notifications by the driver.
    pub notifications: u64,
    /// Interrupts to the driver.
    pub interrupts: u64,
}

/// Counters behind [`RngStats`].
#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    bytes: AtomicU64,
    notifications: AtomicU64,
    /// That of the transport, from the first activation on.
    interrupt: OnceLock<Arc<Interrupt>>,
}

/// Watches an entropy source while its guest runs.
#[derive(Clone)]
pub struct RngHandle(Arc<Shared>);

impl RngHandle {
    /// The counts so far.
    pub fn stats(&self) -> RngStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RngStats {
            requests: read(&self.0.requests),
            bytes: read(&self.0.bytes),
            notifications: read(&self.0.notifications),
            interrupts: self.0.interrupt.get().map_or(0, |line| line.raised()),
        }
    }
}

/// The device. It has one queue and no configuration.
pub struct Rng {
    worker: Worker,
    shared: Arc<Shared>,
}

impl Rng {
    /// An entropy source.
    ///
    /// # Errors
    /// When the host gives no event for its thread.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            worker: Worker::new("rng", ThreadKind::Rng)?,
            shared: Arc::default(),
        })
    }

    /// What the outside holds of it.
    pub fn handle(&self) -> RngHandle {
        RngHandle(self.shared.clone())
    }
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
        self.worker
            .work(move |stop| serve(queue, &shared, &interrupt, stop))
    }

    fn reset(&mut self) {
        self.worker.halt();
    }

    fn workers(&mut self) -> &mut [Worker] {
        std::slice::from_mut(&mut self.worker)
    }
}

fn serve(mut queue: Virtqueue, shared: &Shared, interrupt: &Arc<Interrupt>, stop: &Stop) {
    let mut chain = Chain::default();
    loop {
        let more = match serve_some(&mut queue, &mut chain, shared) {
            Ok(more) => more,
            Err(why) => return interrupt.needs_reset(&why),
        };
        // SAFETY: the descriptor belongs to the queue, which outlives the call.
        let notified = unsafe { BorrowedFd::borrow_raw(queue.notified().as_raw_fd()) };
        let mut fds = [
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(notified, PollFlags::IN),
        ];
        // With work left this only looks whether to stop. Interrupted or not: what is readable decides.
        let _ = poll(&mut fds, more.then_some(&Timespec::default()));
        if !fds[0].revents().is_empty() {
            return;
        }
        let notified = queue.notified().read().unwrap_or(0);
        (shared.notifications).fetch_add(notified, Ordering::Relaxed);
    }
}

/// Answers what there is, but no more than a queue full, so that a driver that never ceases to ask cannot
/// keep the device from being reset; true if there may be more.
fn serve_some(queue: &mut Virtqueue, chain: &mut Chain, shared: &Shared) -> Result<bool, Broken> {
    let mut bytes = [0; REQUEST_BYTES];
    for answered in 0..queue.size() {
        if !queue.pop(chain)? {
            if answered > 0 {
                queue.signal()?;
            }
            return queue.unmute();
        }
        let wanted = chain.writable_bytes().min(REQUEST_BYTES as u64) as usize;
        // From an initialized generator getrandom returns at once and, up to 256 bytes, in full.
        let filled = getrandom(&mut bytes[..wanted], GetRandomFlags::empty()).unwrap_or(0);
        let written = chain.write(queue.memory(), 0, &bytes[..filled])?;
        queue.push(chain.head(), written as u32)?;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        shared.bytes.fetch_add(written as u64, Ordering::Relaxed);
    }
    queue.signal()?;
    Ok(true)
}
