//! Frames from the guest: from the transmit queue to the port, without a copy.

use super::header::{self, BYTES};
use super::port::Port;
use super::stats::{Shared, count};
use super::step::{BATCH, Wait};
use crate::devices::virtio::iovecs::Spare;
use crate::devices::virtio::rate_limiter::{Gate, Take};
use crate::devices::virtio::{Broken, Chain, Fate, Iovecs, Virtqueue};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// The transmit side of a queue pair.
pub(super) struct Transmitter {
    queue: Virtqueue,
    sender: Sender,
}

struct Sender {
    port: Arc<dyn Port>,
    shared: Arc<Shared>,
    gate: Gate,
    features: u64,
    /// The first frame of the queue has had its tokens already.
    admitted: bool,
    spare: Spare,
}

/// The frame is gone, well or not.
const GONE: Fate<Wait> = Fate::Answered(0);

impl Transmitter {
    pub fn new(
        queue: Virtqueue,
        port: Arc<dyn Port>,
        shared: Arc<Shared>,
        features: u64,
    ) -> io::Result<Self> {
        let sender = Sender {
            port,
            gate: shared.transmit.limiter.gate()?,
            shared,
            features,
            admitted: false,
            spare: Spare::default(),
        };
        Ok(Self { queue, sender })
    }

    pub fn queue(&self) -> &Virtqueue {
        &self.queue
    }

    pub fn timer(&self) -> BorrowedFd<'_> {
        self.sender.gate.timer()
    }

    pub fn into_queue(self) -> Virtqueue {
        self.queue
    }

    /// Sends a batch, and says what must happen before the next. The driver is asked not to notify of more.
    pub fn run(&mut self) -> Result<Wait, Broken> {
        let sender = &mut self.sender;
        self.queue.mute();
        let drained = self
            .queue
            .take(BATCH, |queue, chain| sender.send(queue, chain));
        self.queue.signal();
        Ok(drained?.into())
    }

    /// Asks the driver to notify of more; true if there is some already.
    pub fn listen(&mut self) -> Result<bool, Broken> {
        self.queue.unmute()
    }
}

impl Sender {
    fn send(&mut self, queue: &Virtqueue, chain: &Chain) -> Result<Fate<Wait>, Broken> {
        let total = chain.readable_bytes() as usize;
        if !chain.writable().is_empty() {
            return Err(Broken::Request("a frame to send is in a writable buffer"));
        }
        if total < BYTES {
            return Err(Broken::Request(
                "a frame to send is shorter than its header",
            ));
        }
        let counters = &self.shared.transmit.counters;
        let memory = queue.memory();
        // A copy: what is checked here is what is used.
        let mut header = [0; BYTES];
        chain.read(memory, 0, &mut header)?;
        let frame = total - BYTES;
        if let Err(why) = header::check_transmit(&mut header, frame, self.features) {
            log::debug!("a frame of {frame} bytes is not sent: {why}");
            count(&counters.errors, 1);
            return Ok(GONE);
        }
        if !self.admitted && self.gate.take(1, frame as u64) != Take::Ready {
            return Ok(Fate::PutBack(Wait::Timer));
        }
        let mut iovecs = Iovecs::reusing(&mut self.spare);
        iovecs.push(&mut header);
        let parts = chain.readable_parts(BYTES as u64, frame as u64);
        iovecs.push_guest(memory, parts)?;
        let result = self.port.send(&iovecs);
        iovecs.put_back(&mut self.spare);
        match result {
            Ok(()) => {
                count(&counters.frames, 1);
                count(&counters.bytes, frame as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.admitted = true;
                return Ok(Fate::PutBack(Wait::Port));
            }
            Err(error) => {
                log::debug!("a frame of {frame} bytes is not sent: {error}");
                count(&counters.errors, 1);
            }
        }
        self.admitted = false;
        Ok(GONE)
    }
}
