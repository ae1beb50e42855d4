//! What a driver asks: the request header, checked against the disk (virtio 1.2 §5.2.6).

use super::layout::{DISCARD_SECTORS, SECTOR_BYTES, ZERO_SECTORS};
use crate::devices::virtio::{Broken, Chain, Segment};
use crate::memory::GuestRam;
use std::fmt;

/// Bytes of `type`, `reserved` and `sector`.
pub(super) const HEADER_BYTES: u64 = 16;
/// Bytes of one range of a discard or write-zeroes.
const RANGE_BYTES: u64 = 16;
/// Bytes of an identity string.
pub(super) const ID_BYTES: usize = 20;
/// The most that the kernel transfers at a time (MAX_RW_COUNT); no driver asks for as much.
const TRANSFER_BYTES: u64 = 0x7fff_f000;

/// Request types.
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// The flag of a range that allows to give its space back.
const UNMAP: u32 = 1;

/// How a request ends, as its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What a disk can do and how large it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub capacity_bytes: u64,
    pub read_only: bool,
    pub discards: bool,
}

/// What is to be done. Offsets and sizes are in bytes and lie within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read {
        offset: u64,
        bytes: u64,
    },
    Write {
        offset: u64,
        bytes: u64,
    },
    Flush,
    Identify,
    Discard {
        offset: u64,
        bytes: u64,
    },
    Zero {
        offset: u64,
        bytes: u64,
        unmap: bool,
    },
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply {
    /// The place of the status: the last byte that the device may write.
    pub status: Segment,
    /// Bytes that the device may write before it.
    pub room: u64,
}

/// A request that can be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// What to do, or the answer if it cannot be done.
    pub command: Result<Command, Status>,
    /// Where the answer goes.
    pub reply: Reply,
}

impl Request {
    /// What it costs by a rate limit: operations and bytes. Whatever takes the host's time has a price, an error
    /// too.
    pub fn cost(&self) -> (u64, u64) {
        let bytes = (self.command.as_ref()).map_or(0, |command| command.extent().1);
        (1, bytes)
    }

    /// Reads and checks a request. How it is cut into descriptors does not matter (§2.7.4).
    ///
    /// # Errors
    /// When it has no whole header, or no place for a status.
    pub fn parse(chain: &Chain, memory: &GuestRam, limits: &Limits) -> Result<Self, Broken> {
        let mut header = [0; HEADER_BYTES as usize];
        if chain.read(memory, 0, &mut header)? < header.len() {
            return Err(Broken::Request("a block request has no whole header"));
        }
        let room = chain.writable_bytes().checked_sub(1);
        let last = room.and_then(|room| {
            chain
                .writable_parts(room, 1)
                .next()
                .map(|part| (room, part))
        });
        let Some((room, last)) = last else {
            return Err(Broken::Request(
                "a block request has no room for its status",
            ));
        };
        let request = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64::from_le_bytes(std::array::from_fn(|i| header[8 + i]));
        let data = chain.readable_bytes() - HEADER_BYTES;
        Ok(Self {
            command: match request {
                kind::IN => limits
                    .transfer(sector, room)
                    .map(|(offset, bytes)| Command::Read { offset, bytes }),
                kind::OUT => limits.write(sector, data),
                kind::FLUSH => Ok(Command::Flush),
                kind::GET_ID if room < ID_BYTES as u64 => Err(Status::IoError),
                kind::GET_ID => Ok(Command::Identify),
                kind::DISCARD | kind::WRITE_ZEROES => {
                    limits.range(request == kind::DISCARD, data, chain, memory)?
                }
                _ => Err(Status::Unsupported),
            },
            reply: Reply { status: last, room },
        })
    }
}

impl Limits {
    /// Whole sectors within the disk, as offset and size in bytes.
    fn transfer(&self, sector: u64, bytes: u64) -> Result<(u64, u64), Status> {
        let offset = sector.checked_mul(SECTOR_BYTES);
        let end = offset.and_then(|offset| offset.checked_add(bytes));
        match (offset, end) {
            (Some(offset), Some(end))
                if end <= self.capacity_bytes
                    && bytes.is_multiple_of(SECTOR_BYTES)
                    && bytes <= TRANSFER_BYTES =>
            {
                Ok((offset, bytes))
            }
            _ => Err(Status::IoError),
        }
    }

    fn write(&self, sector: u64, bytes: u64) -> Result<Command, Status> {
        // §5.2.6.2: on a read-only device writes fail and change nothing.
        if self.read_only {
            return Err(Status::IoError);
        }
        let (offset, bytes) = self.transfer(sector, bytes)?;
        Ok(Command::Write { offset, bytes })
    }

    fn range(
        &self,
        discard: bool,
        data: u64,
        chain: &Chain,
        memory: &GuestRam,
    ) -> Result<Result<Command, Status>, Broken> {
        if self.read_only {
            return Ok(Err(Status::IoError));
        }
        if !self.discards {
            return Ok(Err(Status::Unsupported));
        }
        // Exactly as many ranges as the configuration space allows: one.
        if data != RANGE_BYTES {
            return Ok(Err(Status::IoError));
        }
        let mut range = [0; RANGE_BYTES as usize];
        chain.read(memory, HEADER_BYTES, &mut range)?;
        let sector = u64::from_le_bytes(std::array::from_fn(|i| range[i]));
        let sectors = u32::from_le_bytes(std::array::from_fn(|i| range[8 + i]));
        let flags = u32::from_le_bytes(std::array::from_fn(|i| range[12 + i]));
        Ok(self.check_range(discard, sector, sectors, flags))
    }

    fn check_range(
        &self,
        discard: bool,
        sector: u64,
        sectors: u32,
        flags: u32,
    ) -> Result<Command, Status> {
        // §5.2.6.2: flags that are unknown, or not this request's, are unsupported.
        let (known, most) = match discard {
            true => (0, DISCARD_SECTORS),
            false => (UNMAP, ZERO_SECTORS),
        };
        if flags & !known != 0 {
            return Err(Status::Unsupported);
        }
        let bytes = u64::from(sectors) * SECTOR_BYTES;
        let (offset, end) = match sector.checked_mul(SECTOR_BYTES) {
            Some(offset) => (offset, offset.saturating_add(bytes)),
            None => return Err(Status::IoError),
        };
        if sectors > most || end > self.capacity_bytes {
            return Err(Status::IoError);
        }
        Ok(match discard {
            true => Command::Discard { offset, bytes },
            false => Command::Zero {
                offset,
                bytes,
                unmap: flags & UNMAP != 0,
            },
        })
    }
}

impl Command {
    /// Where on the disk it is about and how much: offset and bytes. Those that are zeroed or given back count as if they
    /// were written.
    pub fn extent(&self) -> (u64, u64) {
        match *self {
            Command::Read { offset, bytes }
            | Command::Write { offset, bytes }
            | Command::Discard { offset, bytes }
            | Command::Zero { offset, bytes, .. } => (offset, bytes),
            Command::Flush | Command::Identify => (0, 0),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Read { .. } => "a read",
            Command::Write { .. } => "a write",
            Command::Flush => "a flush",
            Command::Identify => "a question for its name",
            Command::Discard { .. } => "a discard",
            Command::Zero { .. } => "writing zeroes",
        })
    }
}
