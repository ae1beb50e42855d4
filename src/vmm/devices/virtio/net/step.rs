//! How a direction gets on: a batch at a time, and what it then waits for.

use crate::devices::virtio::Drained;

/// Frames of one direction before the other has its turn.
pub(super) const BATCH: usize = 64;

/// What must happen before one direction can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: there is more to do.
    Again,
    /// The driver makes buffers available.
    Queue,
    /// The port can be read or written.
    Port,
    /// The rate limit allows more.
    Timer,
    /// The driver switches the queue pair on.
    Nothing,
}

impl From<Drained<Wait>> for Wait {
    fn from(drained: Drained<Wait>) -> Self {
        match drained {
            Drained::Empty => Wait::Queue,
            Drained::Portion => Wait::Again,
            Drained::Waits(wait) => wait,
        }
    }
}
