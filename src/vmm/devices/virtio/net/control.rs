//! The control queue (virtio 1.2 §5.1.6.5): how many queue pairs are used, and which offloads.

use super::header::{self, feature};
use super::worker::{BATCH, Lane, Wait};
use crate::devices::virtio::{Broken, Chain, Virtqueue};
use std::sync::Arc;

/// Classes and their commands.
const MQ: u8 = 4;
const VQ_PAIRS_SET: u8 = 0;
const GUEST_OFFLOADS: u8 = 5;
const GUEST_OFFLOADS_SET: u8 = 0;

const OK: u8 = 0;
const ERR: u8 = 1;

/// The longest command that is known: class, command and 64 bits.
const COMMAND_BYTES: usize = 2 + 8;

/// The device side of the control queue.
pub(super) struct Control {
    queue: Virtqueue,
    lanes: Arc<[Lane]>,
    features: u64,
    chain: Chain,
}

impl Control {
    pub fn new(queue: Virtqueue, lanes: Arc<[Lane]>, features: u64) -> Self {
        Self {
            queue,
            lanes,
            features,
            chain: Chain::default(),
        }
    }

    pub fn queue(&self) -> &Virtqueue {
        &self.queue
    }

    /// Answers a batch of commands.
    pub fn run(&mut self) -> Result<Wait, Broken> {
        let mut wait = Wait::Again;
        for _ in 0..BATCH {
            if !self.queue.pop(&mut self.chain)? {
                wait = Wait::Queue;
                break;
            }
            if self.chain.writable_bytes() == 0 {
                return Err(Broken::Request("a command leaves no room for its answer"));
            }
            let mut command = [0; COMMAND_BYTES];
            let read = self.chain.read(self.queue.memory(), 0, &mut command)?;
            let known = read as u64 == self.chain.readable_bytes();
            let answer = match known && self.obey(&command[..read]) {
                true => OK,
                false => ERR,
            };
            self.chain.write(self.queue.memory(), 0, &[answer])?;
            self.queue.push(self.chain.head(), 1)?;
        }
        self.queue.signal()?;
        if wait == Wait::Queue && self.queue.unmute()? {
            wait = Wait::Again;
        }
        Ok(wait)
    }

    fn obey(&self, command: &[u8]) -> bool {
        match *command {
            [MQ, VQ_PAIRS_SET, low, high] if self.features & feature::MQ != 0 => {
                self.use_pairs(u16::from_le_bytes([low, high]).into())
            }
            [GUEST_OFFLOADS, GUEST_OFFLOADS_SET, ref bits @ ..]
                if self.features & feature::CTRL_GUEST_OFFLOADS != 0 =>
            {
                bits.try_into()
                    .is_ok_and(|bits| self.set_offloads(u64::from_le_bytes(bits)))
            }
            _ => false,
        }
    }

    /// §5.1.6.5.6.2: all are ready when more are asked for, and none but these receives when fewer are.
    fn use_pairs(&self, pairs: usize) -> bool {
        (1..=self.lanes.len()).contains(&pairs)
            && self.lanes.iter().enumerate().all(|(index, lane)| {
                match lane.set_active(index < pairs) {
                    Ok(()) => true,
                    Err(error) => {
                        let what = format_args!("queue pair {index} cannot be used: {error}");
                        self.queue.complain(what);
                        false
                    }
                }
            })
    }

    fn set_offloads(&self, bits: u64) -> bool {
        bits & !(self.features & feature::GUEST_OFFLOADS) == 0
            && self
                .lanes
                .iter()
                .all(|lane| lane.port.set_offloads(header::offloads(bits)).is_ok())
    }
}
