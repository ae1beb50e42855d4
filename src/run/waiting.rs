//! Requests to a VM that have no answer yet.

use crate::control::Wanted;
use kvmlet_control::Order;
use std::time::{Duration, Instant};

/// How long a VM may take for an answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// A request that has no answer yet, by the number that the VM knows it by.
pub(crate) struct Waiting {
    pub number: u32,
    pub order: Order,
    pub asker: Asker,
    pub since: Instant,
}

impl Waiting {
    /// Is it that the VM is saved?
    pub fn is_saving(&self) -> bool {
        self.order.is_saving()
    }

    /// Until when it is to be answered. A VM that is being saved takes as long as whoever writes that.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_saving() && !matches!(self.asker, Asker::Nobody)).then(|| self.since + ANSWER)
    }
}

/// Who has asked.
pub(crate) enum Asker {
    /// The program at the channel, by its number.
    Channel(u32),
    Client(Wanted),
    /// Whoever has asked was told that there is no answer.
    Nobody,
}
