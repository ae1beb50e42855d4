use super::fields::{Fields, Frame, message, signal};
use super::{FrameError, Message, Output};
use crate::ConsoleSize;

/// The most entropy in one request, in bytes: twice what the kernel's generator holds.
pub const MAX_ENTROPY: usize = 64;

/// In place of a time limit: the one that was described.
const AS_DESCRIBED: u32 = u32::MAX;

/// What the process of a description is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The guest's one service: the guest ends with it.
    Service,
    /// A process beside it.
    Exec,
    /// Such a process, but one of the agent's own programs, which an image need not have. The first argument is its name:
    /// [`super::PROCESSES`], [`super::PACK`] or [`super::UNPACK`].
    Tool,
}

impl Role {
    /// As it is sent.
    const fn number(self) -> u8 {
        match self {
            Self::Service => 0,
            Self::Exec => 1,
            Self::Tool => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Service),
            1 => Some(Self::Exec),
            2 => Some(Self::Tool),
            _ => None,
        }
    }
}

/// What the host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first one on each connection.
    Hello {
        /// The newest version that the host knows.
        version: u16,
    },
    /// A description of a process follows, in [`Request::Describe`].
    Begin {
        /// Its length in bytes, at most [`super::MAX_DESCRIPTION`].
        length: u32,
    },
    /// The next part of the description.
    Describe {
        /// At least one byte, and no more than are missing.
        part: &'a [u8],
    },
    /// Start the process, whose description is complete.
    Start {
        /// As what.
        role: Role,
    },
    /// Make this connection the service's, which was started by another one; that ends.
    Attach,
    /// Input for the process, which takes credit.
    Input {
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// There is no more input. A terminal has no such end: whoever is there types one.
    EndInput,
    /// That much more may be sent of what the process writes.
    Credit {
        /// To which stream.
        output: Output,
        /// In bytes.
        bytes: u32,
    },
    /// The terminal's size has changed.
    Resize {
        /// What it is now.
        size: ConsoleSize,
    },
    /// Send a signal to the process.
    Signal {
        /// Its number, 1 to 64.
        signal: u8,
        /// To all of its process group.
        group: bool,
    },
    /// Stop the service: a signal, and when time is up, SIGKILL. Told in [`super::Event::Stopping`].
    Stop {
        /// Instead of the signal in the description.
        signal: Option<u8>,
        /// Instead of the time limit in the description, in milliseconds.
        timeout_ms: Option<u32>,
    },
    /// What time is it there? Answered by [`super::Event::Clock`].
    ReadClock,
    /// Set the clock of the day. Answered by [`super::Event::Done`].
    SetClock {
        /// Nanoseconds since 1970-01-01 00:00 UTC.
        realtime_ns: u64,
    },
    /// Add to the kernel's random numbers, and have them used at once. Answered by [`super::Event::Done`].
    AddEntropy {
        /// 1 to [`MAX_ENTROPY`] bytes, all of them random.
        bytes: &'a [u8],
    },
    /// Give an interface this configuration instead of the one that it has. Answered by [`super::Event::Done`].
    Network {
        /// What `kvmlet.net=` says on the kernel command line.
        spec: &'a str,
    },
    /// The end of the service is known, and all that it wrote: power off.
    PowerOff,
    /// The machine goes on from a snapshot, and others may: it becomes one of its own, with the name, the networks and the hosts
    /// of the description before, whose other fields mean nothing. Answered by [`super::Event::Done`].
    Renew,
}

impl<'a> Message<'a> for Request<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        message(bytes, 1..=17, read)
    }

    fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut frame = Frame::new(out, self.kind());
        match *self {
            Self::Hello { version } => frame.greeting(version),
            Self::Begin { length } => frame.put(&length.to_le_bytes()),
            Self::Describe { part: bytes } | Self::Input { bytes } | Self::AddEntropy { bytes } => {
                frame.put(bytes)
            }
            Self::Start { role } => frame.put(&[role.number()]),
            Self::Credit { output, bytes } => {
                frame.put(&[output.number()]);
                frame.put(&bytes.to_le_bytes());
            }
            Self::Resize { size } => {
                frame.put(&size.columns.to_le_bytes());
                frame.put(&size.rows.to_le_bytes());
            }
            Self::Signal { signal, group } => frame.put(&[signal, u8::from(group)]),
            Self::Stop { signal, timeout_ms } => {
                frame.put(&[signal.unwrap_or(0)]);
                frame.put(&timeout_ms.unwrap_or(AS_DESCRIBED).to_le_bytes());
            }
            Self::SetClock { realtime_ns } => frame.put(&realtime_ns.to_le_bytes()),
            Self::Network { spec } => frame.put(spec.as_bytes()),
            Self::Attach | Self::EndInput | Self::ReadClock | Self::PowerOff | Self::Renew => {}
        }
        frame.finish()
    }
}

impl Request<'_> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Begin { .. } => 2,
            Self::Describe { .. } => 3,
            Self::Start { .. } => 4,
            Self::Attach => 5,
            Self::Input { .. } => 6,
            Self::EndInput => 7,
            Self::Credit { .. } => 8,
            Self::Resize { .. } => 9,
            Self::Signal { .. } => 10,
            Self::Stop { .. } => 11,
            Self::ReadClock => 12,
            Self::SetClock { .. } => 13,
            Self::AddEntropy { .. } => 14,
            Self::Network { .. } => 15,
            Self::PowerOff => 16,
            Self::Renew => 17,
        }
    }
}

/// Reads the fields of a request; nothing if one is missing or cannot be.
fn read<'a>(kind: u8, fields: &mut Fields<'a>) -> Option<Request<'a>> {
    Some(match kind {
        1 => Request::Hello {
            version: fields.greeting()?,
        },
        2 => Request::Begin {
            length: fields.u32()?,
        },
        3 => Request::Describe {
            part: some(fields.rest())?,
        },
        4 => Request::Start {
            role: Role::from_number(fields.u8()?)?,
        },
        5 => Request::Attach,
        6 => Request::Input {
            bytes: some(fields.rest())?,
        },
        7 => Request::EndInput,
        8 => Request::Credit {
            output: Output::from_number(fields.u8()?)?,
            bytes: fields.u32()?,
        },
        9 => Request::Resize {
            size: ConsoleSize {
                columns: fields.u16()?,
                rows: fields.u16()?,
            },
        },
        10 => Request::Signal {
            signal: signal(fields.u8()?)?,
            group: fields.flag()?,
        },
        11 => Request::Stop {
            signal: match fields.u8()? {
                0 => None,
                number => Some(signal(number)?),
            },
            timeout_ms: Some(fields.u32()?).filter(|ms| *ms != AS_DESCRIBED),
        },
        12 => Request::ReadClock,
        13 => Request::SetClock {
            realtime_ns: fields.u64()?,
        },
        14 => Request::AddEntropy {
            bytes: some(fields.rest()).filter(|bytes| bytes.len() <= MAX_ENTROPY)?,
        },
        15 => Request::Network {
            spec: core::str::from_utf8(fields.rest()).ok()?,
        },
        16 => Request::PowerOff,
        17 => Request::Renew,
        _ => return None,
    })
}

fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}
