//! What a VM can be asked.

use crate::Malformed;
use crate::wire::{Reader, Writer};

/// Something that a VM is asked, with a number by which whoever asks knows the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of the question.
    pub number: u32,
    /// What is to be done.
    pub order: Order,
}

/// What a VM can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// To stand still: its vCPUs and devices do nothing until it is to go on.
    Pause,
    /// To go on.
    Resume,
    /// To end: the guest is asked, and its power is cut when its time is up.
    Stop {
        /// How long it has, in milliseconds; none for what its configuration says. With 0 it is not asked.
        patience_ms: Option<u32>,
    },
    /// To tell what it has done so far.
    Stats,
    /// To tell what it is doing: now, and whenever that changes.
    Watch,
    /// To have its service take a signal. SIGKILL cuts the VM's power.
    Signal {
        /// By its number.
        signal: u8,
    },
    /// To tell which ports of the host lead to it.
    Published,
}

/// No request is longer.
pub const REQUEST_BYTES: usize = 64;

const PAUSE: u8 = 1;
const RESUME: u8 = 2;
const STOP: u8 = 3;
const STATS: u8 = 4;
const WATCH: u8 = 5;
const SIGNAL: u8 = 6;
const PUBLISHED: u8 = 7;

impl Request {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        let begin = |kind| Writer::new(kind).u32(self.number);
        match self.order {
            Order::Pause => begin(PAUSE),
            Order::Resume => begin(RESUME),
            Order::Stop { patience_ms } => begin(STOP).option(patience_ms, Writer::u32),
            Order::Stats => begin(STATS),
            Order::Watch => begin(WATCH),
            Order::Signal { signal } => begin(SIGNAL).u8(signal),
            Order::Published => begin(PUBLISHED),
        }
        .finish()
    }

    /// Of a message.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (kind, mut reader) = Reader::new(message)?;
        if !(PAUSE..=PUBLISHED).contains(&kind) {
            return Err(Malformed::Kind(kind));
        }
        let number = reader.u32()?;
        let order = match kind {
            PAUSE => Order::Pause,
            RESUME => Order::Resume,
            STOP => Order::Stop {
                patience_ms: reader.option(Reader::u32)?,
            },
            STATS => Order::Stats,
            WATCH => Order::Watch,
            SIGNAL => Order::Signal {
                signal: reader.u8()?,
            },
            _ => Order::Published,
        };
        reader.finish()?;
        Ok(Self { number, order })
    }
}
