//! Who moves the frames of a pair: its thread, or the host's kernel.

use super::kernel::{Failure, KernelPair};
use super::worker::Pair;
use crate::devices::virtio::{Orders, QueueState, Server, Virtqueue};

/// What a pair's thread serves with.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each pair, which is not moved but once"
)]
pub(super) enum Serving {
    /// The thread does.
    Thread(Pair),
    /// The kernel does.
    Kernel(KernelPair),
}

/// Queues, and the frame that waits for the guest.
type Given<Q> = (Vec<Q>, Option<Vec<u8>>);

impl Serving {
    /// Its queues, and the frame that waits for the guest, with its header.
    pub fn give_back(self) -> Given<Virtqueue> {
        match self {
            Self::Thread(pair) => {
                let (queues, frame) = pair.give_back();
                (queues.collect(), frame)
            }
            Self::Kernel(pair) => (pair.give_back(), None),
        }
    }

    /// What it would [give back](Self::give_back).
    pub fn look(&self) -> Given<(u16, QueueState)> {
        match self {
            Self::Thread(pair) => pair.look(),
            Self::Kernel(pair) => (pair.look(), None),
        }
    }
}

impl Server for Serving {
    type Failure = Failure;

    fn serve(&mut self, orders: &Orders) -> Result<(), Failure> {
        match self {
            Self::Thread(pair) => Ok(pair.serve(orders)?),
            Self::Kernel(pair) => pair.serve(orders),
        }
    }
}
