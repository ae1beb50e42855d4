//! What a VM can be asked.

use crate::Malformed;
use crate::wire::{Reader, Writer};
use kvmlet_spec::{Rate, RateLimit};

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
    /// To be saved: it sleeps while all of it is told, through a descriptor that the [answer](crate::Report::Saving) comes
    /// with, and goes on then.
    Save,
    /// To have its guest hear the machine's power button. Refused where no driver listens; nothing else ends the VM.
    Press,
    /// To have the guest give that much of its memory back, by the balloon that it has.
    Balloon {
        /// How much it is to hold, all in all, in mebibytes.
        mib: u32,
    },
    /// To do no more than that from now on.
    Limit {
        /// What it is a limit of.
        device: Limited,
        /// The limit, instead of the one that held.
        limit: RateLimit,
    },
    /// To look how large the file behind a disk is now, and to tell the guest.
    Resize {
        /// Its place among the disks, from 0.
        disk: u8,
    },
    /// To tell which addresses its interfaces have, as kvmlet has chosen them.
    Interfaces,
    /// To be [saved](Self::Save), and to stand still when all is told, until the descriptor is closed; then it goes on.
    Suspend,
    /// To stand still for good: what [was told](Self::Suspend) is whole and kept. It goes on only if that is asked for.
    Suspended,
    /// To be [saved](Self::Save), but of its memory to tell no more than what has changed since that snapshot. Refused unless it
    /// was the last whole one of this VM, or the one that it goes on from.
    SaveSince {
        /// The snapshot's id.
        base: [u8; 16],
    },
}

impl Order {
    /// Is the VM [saved](Self::Save) by it, in one way or another?
    pub fn is_saving(&self) -> bool {
        matches!(self, Self::Save | Self::SaveSince { .. } | Self::Suspend)
    }
}

/// What has limits, by its place among those of its kind, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limited {
    /// A disk.
    Disk(u8),
    /// What an interface's guest receives.
    Receive(u8),
    /// What it sends.
    Transmit(u8),
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
const SAVE: u8 = 8;
const PRESS: u8 = 9;
const BALLOON: u8 = 10;
const LIMIT: u8 = 11;
const RESIZE: u8 = 12;
const INTERFACES: u8 = 13;
const SUSPEND: u8 = 14;
const SUSPENDED: u8 = 15;
const SAVE_SINCE: u8 = 16;

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
            Order::Save => begin(SAVE),
            Order::Press => begin(PRESS),
            Order::Balloon { mib } => begin(BALLOON).u32(mib),
            Order::Limit { device, limit } => put_limit(begin(LIMIT), device, limit),
            Order::Resize { disk } => begin(RESIZE).u8(disk),
            Order::Interfaces => begin(INTERFACES),
            Order::Suspend => begin(SUSPEND),
            Order::Suspended => begin(SUSPENDED),
            Order::SaveSince { base } => begin(SAVE_SINCE).bytes(&base),
        }
        .finish()
    }

    /// Of a message.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (kind, mut reader) = Reader::new(message)?;
        if !(PAUSE..=SAVE_SINCE).contains(&kind) {
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
            PUBLISHED => Order::Published,
            SAVE => Order::Save,
            PRESS => Order::Press,
            BALLOON => Order::Balloon { mib: reader.u32()? },
            LIMIT => take_limit(&mut reader)?,
            RESIZE => Order::Resize { disk: reader.u8()? },
            INTERFACES => Order::Interfaces,
            SUSPEND => Order::Suspend,
            SUSPENDED => Order::Suspended,
            _ => Order::SaveSince {
                base: reader.array()?,
            },
        };
        reader.finish()?;
        Ok(Self { number, order })
    }
}

fn put_limit(writer: Writer, device: Limited, limit: RateLimit) -> Writer {
    let (kind, place) = match device {
        Limited::Disk(place) => (0, place),
        Limited::Receive(place) => (1, place),
        Limited::Transmit(place) => (2, place),
    };
    let rate = |writer: Writer, rate: Rate| {
        let (per_second, burst, once) = rate.parts();
        let numbers = [per_second.get(), burst.get(), once];
        let put = |writer: Writer, number: u64| writer.bytes(&number.to_le_bytes());
        numbers.into_iter().fold(writer, put)
    };
    let writer = writer.u8(kind).u8(place);
    writer
        .option(limit.bandwidth, rate)
        .option(limit.operations, rate)
}

fn take_limit(reader: &mut Reader<'_>) -> Result<Order, Malformed> {
    let (kind, place) = (reader.u8()?, reader.u8()?);
    let device = match kind {
        0 => Limited::Disk(place),
        1 => Limited::Receive(place),
        2 => Limited::Transmit(place),
        other => return Err(Malformed::Value(other)),
    };
    let number = |reader: &mut Reader<'_>| {
        let low = u64::from(reader.u32()?);
        Ok::<_, Malformed>(low | u64::from(reader.u32()?) << 32)
    };
    let rate = |reader: &mut Reader<'_>| {
        let per_second = Rate::per_second(number(reader)?);
        let rate = per_second.map_err(|_| Malformed::Value(0))?;
        let rate = rate.burst(number(reader)?);
        Ok(rate.once(number(reader)?))
    };
    let limit = RateLimit {
        bandwidth: reader.option(rate)?,
        operations: reader.option(rate)?,
    };
    Ok(Order::Limit { device, limit })
}
