use super::fields::{Fields, Frame, message, signal};
use super::{FrameError, Message, Output};

/// The longest message of a failure, in bytes.
pub const MAX_MESSAGE: usize = 512;

const FIRST: u8 = 0x81;
const LAST: u8 = 0x8b;

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(u8),
    /// Killed by the signal with this number.
    Signal(u8),
}

impl Ended {
    /// From a status that wait(2) gives.
    pub const fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) as u8),
            signal => Self::Signal(signal as u8),
        }
    }

    /// The exit code that says it, as shells have it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + (signal & 0x7f),
        }
    }
}

/// What a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The host knows no version that the agent knows. The connection ends.
    Version,
    /// The host broke the rules of the frames. The connection ends.
    Protocol,
    /// There are as many connections as there may be. The connection ends.
    Busy,
    /// The process could not be started; the exit code says why as shells have it.
    /// The connection ends, but for the service's, which ends with the guest.
    Start {
        /// 125, 126 or 127.
        exit_code: u8,
    },
    /// A request about the machine failed. The connection goes on.
    Request,
}

/// How far the end of a service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopStep {
    /// It was sent the signal that asks it to end.
    Signalled {
        /// The signal's number.
        signal: u8,
    },
    /// It was killed, because its time was up or it ignores the signal.
    Killed,
}

/// What the guest answers and tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The first one on each connection.
    Hello {
        /// The newest version that the agent knows.
        version: u16,
    },
    /// The process runs.
    Started {
        /// Its number in the guest.
        pid: u32,
    },
    /// Something did not work.
    Failed {
        /// What.
        fault: Fault,
        /// In words: the rest of a sentence that starts with "cannot". Whoever prints it keeps in mind that it is a guest's.
        message: &'a [u8],
    },
    /// What the process wrote, which takes credit.
    Output {
        /// Where.
        output: Output,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// Nobody can write there any more.
    OutputEnded {
        /// Where.
        output: Output,
    },
    /// That much more may be sent of input.
    InputCredit {
        /// In bytes.
        bytes: u32,
    },
    /// Nobody reads the input any more: what is sent on is dropped.
    InputClosed,
    /// The process has ended, and all that it wrote has been sent.
    Exited {
        /// How.
        ended: Ended,
    },
    /// The service is being stopped.
    Stopping {
        /// How far that has come.
        step: StopStep,
    },
    /// A request about the machine is fulfilled.
    Done,
    /// What time it is.
    Clock {
        /// Nanoseconds since 1970-01-01 00:00 UTC.
        realtime_ns: u64,
        /// Nanoseconds since the machine's start, the time that it was asleep included.
        boottime_ns: u64,
    },
}

impl<'a> Message<'a> for Event<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        message(bytes, FIRST..=LAST, read)
    }

    fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut frame = Frame::new(out, self.kind());
        match *self {
            Self::Hello { version } => frame.greeting(version),
            Self::Started { pid } => frame.put(&pid.to_le_bytes()),
            Self::Failed { fault, message } => {
                frame.put(&fault.numbers());
                frame.put(&message[..message.len().min(MAX_MESSAGE)]);
            }
            Self::Output { output, bytes } => {
                frame.put(&[output.number()]);
                frame.put(bytes);
            }
            Self::OutputEnded { output } => frame.put(&[output.number()]),
            Self::InputCredit { bytes } => frame.put(&bytes.to_le_bytes()),
            Self::Exited { ended } => frame.put(&match ended {
                Ended::Code(code) => [0, code],
                Ended::Signal(signal) => [1, signal],
            }),
            Self::Stopping { step } => frame.put(&[match step {
                StopStep::Signalled { signal } => signal,
                StopStep::Killed => 0,
            }]),
            Self::Clock {
                realtime_ns,
                boottime_ns,
            } => {
                frame.put(&realtime_ns.to_le_bytes());
                frame.put(&boottime_ns.to_le_bytes());
            }
            Self::InputClosed | Self::Done => {}
        }
        frame.finish()
    }
}

impl Event<'_> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => FIRST,
            Self::Started { .. } => 0x82,
            Self::Failed { .. } => 0x83,
            Self::Output { .. } => 0x84,
            Self::OutputEnded { .. } => 0x85,
            Self::InputCredit { .. } => 0x86,
            Self::InputClosed => 0x87,
            Self::Exited { .. } => 0x88,
            Self::Stopping { .. } => 0x89,
            Self::Done => 0x8a,
            Self::Clock { .. } => LAST,
        }
    }
}

impl Fault {
    /// As it is sent: what, and an exit code.
    const fn numbers(self) -> [u8; 2] {
        match self {
            Self::Version => [1, 0],
            Self::Protocol => [2, 0],
            Self::Busy => [3, 0],
            Self::Start { exit_code } => [4, exit_code],
            Self::Request => [5, 0],
        }
    }

    const fn from_numbers(numbers: [u8; 2]) -> Option<Self> {
        Some(match numbers {
            [1, 0] => Self::Version,
            [2, 0] => Self::Protocol,
            [3, 0] => Self::Busy,
            [4, exit_code @ 125..=127] => Self::Start { exit_code },
            [5, 0] => Self::Request,
            _ => return None,
        })
    }
}

/// Reads the fields of an event; nothing if one is missing or cannot be.
fn read<'a>(kind: u8, fields: &mut Fields<'a>) -> Option<Event<'a>> {
    Some(match kind {
        FIRST => Event::Hello {
            version: fields.greeting()?,
        },
        0x82 => Event::Started { pid: fields.u32()? },
        0x83 => Event::Failed {
            fault: Fault::from_numbers([fields.u8()?, fields.u8()?])?,
            message: Some(fields.rest()).filter(|text| text.len() <= MAX_MESSAGE)?,
        },
        0x84 => Event::Output {
            output: Output::from_number(fields.u8()?)?,
            bytes: Some(fields.rest()).filter(|bytes| !bytes.is_empty())?,
        },
        0x85 => Event::OutputEnded {
            output: Output::from_number(fields.u8()?)?,
        },
        0x86 => Event::InputCredit {
            bytes: fields.u32()?,
        },
        0x87 => Event::InputClosed,
        0x88 => Event::Exited {
            ended: match (fields.u8()?, fields.u8()?) {
                (0, code) => Ended::Code(code),
                (1, number) => Ended::Signal(signal(number)?),
                _ => return None,
            },
        },
        0x89 => Event::Stopping {
            step: match fields.u8()? {
                0 => StopStep::Killed,
                number => StopStep::Signalled {
                    signal: signal(number)?,
                },
            },
        },
        0x8a => Event::Done,
        LAST => Event::Clock {
            realtime_ns: fields.u64()?,
            boottime_ns: fields.u64()?,
        },
        _ => return None,
    })
}
