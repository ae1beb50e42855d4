//! How many queues an interface has.

use super::Error;
use serde::{Deserialize, Serialize};

/// How many pairs of queues an interface has: 1 to [`QueuePairs::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct QueuePairs(u8);

impl QueuePairs {
    /// Each pair has a thread of its own; more have no use for one service.
    pub const MAX: u8 = 8;

    /// The count as a number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for QueuePairs {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u64> for QueuePairs {
    type Error = Error;

    fn try_from(count: u64) -> Result<Self, Error> {
        match u8::try_from(count) {
            Ok(n @ 1..=Self::MAX) => Ok(Self(n)),
            _ => Err(Error::QueuePairs { count }),
        }
    }
}
