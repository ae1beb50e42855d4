//! Frames for the guest: from the port into buffers of the receive queue, without a copy.
//!
//! Buffers are taken from the queue ahead of the frames, as many as the longest frame can need, so that one
//! `readv` puts a frame where it belongs. A frame that finds too few of them ends in a spill area, from
//! which it is completed when the guest gives more, soon, or else dropped.

use super::header::{self, BYTES, ETHERNET_BYTES, LONGEST_FRAME, feature};
use super::port::Port;
use super::stats::{Shared, count};
use super::step::{BATCH, Wait};
use crate::devices::virtio::iovecs::Spare;
use crate::devices::virtio::rate_limiter::{Gate, Take};
use crate::devices::virtio::{Broken, Chain, Iovecs, QueueState, Virtqueue};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a frame waits for the guest to give the buffers that it lacks.
const PATIENCE: Duration = Duration::from_millis(500);

/// A frame that was read.
struct Arrived {
    /// Size with its header.
    bytes: usize,
    /// How much of it is in the guest's buffers; the rest is in the spill area.
    in_buffers: usize,
    /// It has had its tokens.
    admitted: bool,
    since: Instant,
}

/// The receive side of a queue pair.
pub(super) struct Receiver {
    queue: Virtqueue,
    port: Arc<dyn Port>,
    shared: Arc<Shared>,
    gate: Gate,
    features: u64,
    /// Taken from the queue and not used yet.
    held: VecDeque<Chain>,
    held_bytes: usize,
    header: [u8; BYTES],
    spill: Vec<u8>,
    arrived: Option<Arrived>,
    muted: bool,
    /// The port is gone.
    failed: bool,
    spare_chains: Vec<Chain>,
    spare: Spare,
}

impl Receiver {
    pub fn new(
        queue: Virtqueue,
        port: Arc<dyn Port>,
        shared: Arc<Shared>,
        features: u64,
    ) -> io::Result<Self> {
        Ok(Self {
            queue,
            port,
            gate: shared.receive.limiter.gate()?,
            shared,
            features,
            held: VecDeque::new(),
            held_bytes: 0,
            header: [0; BYTES],
            // One more than the longest frame can take: what fills it all was cut.
            spill: vec![0; LONGEST_FRAME + BYTES + 1],
            arrived: None,
            muted: false,
            failed: false,
            spare_chains: Vec::new(),
            spare: Spare::default(),
        })
    }

    /// Goes on with a frame that another [gave back](Self::give_back).
    pub fn with_frame(mut self, frame: &[u8]) -> Self {
        if let Some((header, data)) = frame.split_first_chunk()
            && data.len() <= self.spill.len()
        {
            self.header = *header;
            self.spill[..data.len()].copy_from_slice(data);
            self.arrived = Some(Arrived {
                bytes: frame.len(),
                in_buffers: BYTES,
                admitted: true,
                since: Instant::now(),
            });
        }
        self
    }

    /// The queue, without any of its buffers taken, and the frame that waits, with its header.
    pub fn give_back(mut self) -> (Virtqueue, Option<Vec<u8>>) {
        let frame = self.arrived.take().map(|arrived| self.collect(&arrived));
        self.held.iter().for_each(|_| self.queue.unpop());
        (self.queue, frame)
    }

    /// What it would [give back](Self::give_back): how far the queue has come, by its number, and the frame.
    pub fn look(&self) -> ((u16, QueueState), Option<Vec<u8>>) {
        let mut state = self.queue.state();
        state.next_avail = state.next_avail.wrapping_sub(self.held.len() as u16);
        let frame = self.arrived.as_ref().map(|arrived| self.collect(arrived));
        ((self.queue.number(), state), frame)
    }

    /// A frame of which a part is in the guest's buffers already.
    fn collect(&self, arrived: &Arrived) -> Vec<u8> {
        let mut frame = self.header.to_vec();
        let mut skipped = BYTES;
        for chain in &self.held {
            let bytes = chain.writable_bytes() as usize;
            let wanted = (bytes - skipped).min(arrived.in_buffers - frame.len());
            for part in chain.writable_parts(skipped as u64, wanted as u64) {
                let start = frame.len();
                frame.resize(start + part.bytes as usize, 0);
                // It is RAM, as all of a chain's parts are.
                if let Ok(slice) = part.slice(self.queue.memory()) {
                    slice.copy_to(&mut frame[start..]);
                }
            }
            skipped = 0;
        }
        frame.extend(&self.spill[..arrived.bytes - arrived.in_buffers]);
        frame
    }

    pub fn queue(&self) -> &Virtqueue {
        &self.queue
    }

    pub fn timer(&self) -> BorrowedFd<'_> {
        self.gate.timer()
    }

    /// How long a frame still waits for buffers.
    pub fn patience(&self) -> Option<Duration> {
        let arrived = self.arrived.as_ref()?;
        Some(PATIENCE.saturating_sub(arrived.since.elapsed()))
    }

    /// Hands a batch of frames to the guest, and says what must happen before the next.
    pub fn run(&mut self) -> Result<Wait, Broken> {
        if self.failed {
            return Ok(Wait::Nothing);
        }
        if !std::mem::replace(&mut self.muted, true) {
            self.queue.mute();
        }
        let mut wait = Wait::Again;
        for _ in 0..BATCH {
            if let Some(until) = self.step()? {
                wait = until;
                break;
            }
        }
        self.queue.signal();
        if wait == Wait::Queue {
            self.muted = false;
            if self.queue.unmute()? {
                wait = Wait::Again;
            }
        }
        Ok(wait)
    }

    /// Brings one frame on; says what to wait for if it cannot.
    fn step(&mut self) -> Result<Option<Wait>, Broken> {
        self.gather()?;
        if self.arrived.is_none() {
            if self.held.is_empty() {
                return Ok(Some(Wait::Queue));
            }
            match self.receive()? {
                Ok(arrived) => self.arrived = arrived,
                Err(error) => return Ok(Some(self.fail(&error))),
            }
        }
        let Some(mut arrived) = self.arrived.take() else {
            return Ok(None);
        };
        let frame = (arrived.bytes - BYTES) as u64;
        if !arrived.admitted && self.gate.take(1, frame) != Take::Ready {
            self.arrived = Some(arrived);
            return Ok(Some(Wait::Timer));
        }
        arrived.admitted = true;
        if arrived.bytes > self.held_bytes {
            let late = arrived.since.elapsed() >= PATIENCE;
            if self.mergeable() && !late {
                self.arrived = Some(arrived);
                return Ok(Some(Wait::Queue));
            }
            count(&self.shared.receive.counters.drops, 1);
            return Ok(None);
        }
        self.place(&arrived)?;
        Ok(None)
    }

    fn fail(&mut self, error: &io::Error) -> Wait {
        match error.kind() {
            io::ErrorKind::WouldBlock => Wait::Port,
            io::ErrorKind::Interrupted => Wait::Again,
            _ => {
                let what = format_args!("it receives nothing more: {error}");
                self.queue.complain(what);
                count(&self.shared.receive.counters.errors, 1);
                self.failed = true;
                Wait::Nothing
            }
        }
    }

    fn mergeable(&self) -> bool {
        self.features & feature::MRG_RXBUF != 0
    }

    /// Takes buffers from the queue until the longest frame fits, or all that the guest gives.
    fn gather(&mut self) -> Result<(), Broken> {
        let wanted = match self.mergeable() {
            true => LONGEST_FRAME + BYTES,
            false => 1,
        };
        while self.held_bytes < wanted {
            let mut chain = self.spare_chains.pop().unwrap_or_default();
            if !self.queue.pop(&mut chain)? {
                self.spare_chains.push(chain);
                return Ok(());
            }
            if !chain.readable().is_empty() {
                return Err(Broken::Request("a receive buffer is not writable"));
            }
            let bytes = chain.writable_bytes() as usize;
            if bytes < BYTES {
                return Err(Broken::Request("a receive buffer is shorter than a header"));
            }
            self.held_bytes += bytes;
            self.held.push_back(chain);
        }
        Ok(())
    }

    /// Reads a frame; none if it was nothing for the guest.
    fn receive(&mut self) -> Result<io::Result<Option<Arrived>>, Broken> {
        let memory = self.queue.memory();
        let mut iovecs = Iovecs::reusing(&mut self.spare);
        iovecs.push(&mut self.header);
        let mut skipped = BYTES as u64;
        for chain in &self.held {
            // Pieces beyond what a call takes are filled from the spill area, which is one.
            let room = iovecs.room() - 1;
            let parts = chain.writable_parts(skipped, u64::MAX);
            iovecs.push_guest(memory, parts.take(room))?;
            skipped = 0;
        }
        let in_buffers = iovecs.bytes();
        iovecs.push(&mut self.spill);
        let room = iovecs.bytes();
        let result = self.port.recv(&iovecs);
        iovecs.put_back(&mut self.spare);
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        let counters = &self.shared.receive.counters;
        if bytes < BYTES + ETHERNET_BYTES {
            count(&counters.errors, 1);
            return Ok(Ok(None));
        }
        if bytes == room {
            count(&counters.drops, 1);
            return Ok(Ok(None));
        }
        Ok(Ok(Some(Arrived {
            bytes,
            in_buffers: in_buffers.min(bytes),
            admitted: false,
            since: Instant::now(),
        })))
    }

    /// Completes a frame for which there is room, and hands it over.
    fn place(&mut self, arrived: &Arrived) -> Result<(), Broken> {
        let memory = self.queue.memory();
        let (mut start, mut buffers) = (0, 0);
        for chain in &self.held {
            let end = arrived.bytes.min(start + chain.writable_bytes() as usize);
            let spilled = start.max(arrived.in_buffers);
            if spilled < end {
                let part = spilled - arrived.in_buffers..end - arrived.in_buffers;
                chain.write(memory, (spilled - start) as u64, &self.spill[part])?;
            }
            (start, buffers) = (end, buffers + 1);
            if end == arrived.bytes {
                break;
            }
        }
        let counters = &self.shared.receive.counters;
        if !header::prepare_receive(&mut self.header, buffers, self.features) {
            count(&counters.errors, 1);
            return Ok(());
        }
        self.held[0].write(memory, 0, &self.header)?;
        let mut left = arrived.bytes;
        // §5.1.6.4: the driver sees all of them or none.
        for chain in self.held.drain(..usize::from(buffers)) {
            let room = chain.writable_bytes() as usize;
            let bytes = left.min(room);
            left -= bytes;
            self.held_bytes -= room;
            self.queue.push(chain.head(), bytes as u32);
            self.spare_chains.push(chain);
        }
        self.queue.show_portion();
        count(&counters.frames, 1);
        count(&counters.bytes, (arrived.bytes - BYTES) as u64);
        Ok(())
    }

    /// Forgets a frame that waits, when its queue pair is switched off.
    pub fn forget(&mut self) {
        if self.arrived.take().is_some() {
            count(&self.shared.receive.counters.drops, 1);
        }
    }
}
