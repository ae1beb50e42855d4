//! The control queue (virtio 1.2 §5.1.6.5): how many queue pairs are used, and which offloads.

use super::header::{self, feature};
use super::lane::Lane;
use super::stats::Shared;
use super::step::{BATCH, Wait};
use crate::devices::virtio::{Broken, Chain, Fate, Virtqueue};
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    commands: Commands,
}

/// What commands are about.
struct Commands {
    lanes: Arc<[Lane]>,
    shared: Arc<Shared>,
    features: u64,
}

impl Control {
    pub fn new(queue: Virtqueue, lanes: Arc<[Lane]>, shared: Arc<Shared>, features: u64) -> Self {
        let commands = Commands {
            lanes,
            shared,
            features,
        };
        Self { queue, commands }
    }

    pub fn queue(&self) -> &Virtqueue {
        &self.queue
    }

    pub fn into_queue(self) -> Virtqueue {
        self.queue
    }

    /// Answers a batch of commands.
    pub fn run(&mut self) -> Result<Wait, Broken> {
        let commands = &self.commands;
        let drained = self
            .queue
            .drain(BATCH, |queue, chain| commands.answer(queue, chain));
        Ok(drained?.into())
    }
}

impl Commands {
    fn answer(&self, queue: &Virtqueue, chain: &Chain) -> Result<Fate<Wait>, Broken> {
        if chain.writable_bytes() == 0 {
            return Err(Broken::Request("a command leaves no room for its answer"));
        }
        let mut command = [0; COMMAND_BYTES];
        let read = chain.read(queue.memory(), 0, &mut command)?;
        let known = read as u64 == chain.readable_bytes();
        let answer = match known && self.obey(queue, &command[..read]) {
            true => OK,
            false => ERR,
        };
        chain.write(queue.memory(), 0, &[answer])?;
        Ok(Fate::Answered(1))
    }

    fn obey(&self, queue: &Virtqueue, command: &[u8]) -> bool {
        match *command {
            [MQ, VQ_PAIRS_SET, low, high] if self.features & feature::MQ != 0 => {
                self.use_pairs(queue, u16::from_le_bytes([low, high]).into())
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
    fn use_pairs(&self, queue: &Virtqueue, pairs: usize) -> bool {
        (1..=self.lanes.len()).contains(&pairs)
            && self.lanes.iter().enumerate().all(|(index, lane)| {
                match lane.set_active(index < pairs) {
                    Ok(()) => true,
                    Err(error) => {
                        let what = format_args!("queue pair {index} cannot be used: {error}");
                        queue.complain(what);
                        false
                    }
                }
            })
    }

    fn set_offloads(&self, bits: u64) -> bool {
        let agreed = bits & !(self.features & feature::GUEST_OFFLOADS) == 0;
        let set = |lane: &Lane| lane.port.set_offloads(header::offloads(bits)).is_ok();
        let done = agreed && self.lanes.iter().all(set);
        if done {
            self.shared.offloads.store(bits, Ordering::Release);
        }
        done
    }
}
