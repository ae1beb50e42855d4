//! Entropy source (virtio 1.2 §5.4): fills buffers from the host's random number generator.

use super::{
    Activation, Broken, Chain, DeviceType, Interrupt, Stop, VirtioDevice, Virtqueue, Worker,
};
use crate::host::thread::ThreadKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

const QUEUE_SIZE: u16 = 64;
/// A driver asks for some bytes at a time; more than this in one request is cut, which §5.4.6 allows.
const REQUEST_BYTES: usize = 4096;

/// The device. It has one queue and no configuration.
pub struct Rng {
    worker: Worker,
}

impl Rng {
    /// An entropy source.
    ///
    /// # Errors
    /// When the host gives no event for its thread.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            worker: Worker::new("rng", ThreadKind::Rng)?,
        })
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
        self.worker.work(move |stop| serve(queue, &interrupt, stop))
    }

    fn reset(&mut self) {
        self.worker.halt();
    }

    fn workers(&mut self) -> &mut [Worker] {
        std::slice::from_mut(&mut self.worker)
    }
}

fn serve(mut queue: Virtqueue, interrupt: &Arc<Interrupt>, stop: &Stop) {
    let mut chain = Chain::default();
    loop {
        let more = match serve_some(&mut queue, &mut chain) {
            Ok(more) => more,
            Err(why) => return interrupt.needs_reset("rng", &why),
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
        let _ = queue.notified().read();
    }
}

/// Answers what there is, but no more than a queue full, so that a driver that never ceases to ask cannot
/// keep the device from being reset; true if there may be more.
fn serve_some(queue: &mut Virtqueue, chain: &mut Chain) -> Result<bool, Broken> {
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
    }
    queue.signal()?;
    Ok(true)
}
