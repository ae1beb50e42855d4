//! What a VM tells.

use crate::wire::{Reader, Writer};
use crate::{LONGEST, Malformed, State};
use kvmlet_spec::{Failure, Outcome, Reason};

/// Something that a VM tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// Its guest runs.
    Ready,
    /// A [request](crate::Request) has its answer.
    Answer {
        /// The number of the request.
        to: u32,
        /// Why what was asked for was not done; none if it was.
        refused: Option<Failure>,
    },
    /// What it has done so far, as JSON of [`Stats`](kvmlet_spec::Stats). It was not looked at: whoever reads it is the
    /// first.
    Stats(Vec<u8>),
    /// It has ended. What it had done by then was told before.
    Ended(Box<Outcome>),
    /// What it is doing from now on.
    State(State),
    /// Which ports of the host lead to it, as they are written in configurations: `127.0.0.1:8080:80/tcp`. Those that were
    /// left to the host to choose are what it has chosen. [Not more](Report::MOST_PUBLISHED) are told.
    Published(Vec<String>),
    /// What is to be saved comes through the descriptor that this comes with: pieces of a file, which are one when the
    /// request is answered. It becomes no longer than that, in bytes.
    Saving {
        /// The most that it can have.
        most_bytes: u64,
    },
    /// Which addresses its interfaces have, of those that kvmlet has chosen them for, as a guest is told on its kernel command
    /// line: `eth0,10.0.0.2/30,gateway=10.0.0.1`. [Not more](Report::MOST_INTERFACES) are told.
    Interfaces(Vec<String>),
    /// It was saved, and this is how long it stood still. It is told before [the answer](Report::Answer).
    StoodStill {
        /// In microseconds.
        microseconds: u64,
    },
}

const READY: u8 = 1;
const ANSWER: u8 = 2;
const STATS: u8 = 3;
const ENDED: u8 = 4;
const STATE: u8 = 5;
const PUBLISHED: u8 = 6;
const SAVING: u8 = 7;
const INTERFACES: u8 = 8;
const STOOD_STILL: u8 = 9;

/// No published port takes more: two addresses at most, two ports, a protocol.
const PORT_BYTES: usize = 120;
/// No interface takes more: two addresses, name servers.
const INTERFACE_BYTES: usize = 400;
/// An error has no more causes behind each other.
const MOST_CAUSES: usize = 8;

/// The reasons by their numbers.
const REASONS: [Reason; 10] = [
    Reason::Shutdown,
    Reason::Reset,
    Reason::Panic,
    Reason::TripleFault,
    Reason::Stopped,
    Reason::Escape,
    Reason::Signal,
    Reason::Killed,
    Reason::Forbidden,
    Reason::Failed,
];

impl Report {
    /// As many published ports are told: each is a short text.
    pub const MOST_PUBLISHED: usize = 128;
    /// As many interfaces.
    pub const MOST_INTERFACES: usize = 16;

    /// As a message. Statistics that are longer than a message can be are left out.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Report::Ready => Writer::new(READY),
            Report::Answer { to, refused } => Writer::new(ANSWER)
                .u32(*to)
                .option(refused.as_ref(), put_failure),
            Report::Stats(json) if json.len() > LONGEST - 2 => Writer::new(STATS),
            Report::Stats(json) => Writer::new(STATS).bytes(json),
            Report::Ended(outcome) => put_outcome(Writer::new(ENDED), outcome),
            Report::State(state) => Writer::new(STATE).u8(state.number()),
            Report::StoodStill { microseconds } => {
                Writer::new(STOOD_STILL).bytes(&microseconds.to_le_bytes())
            }
            Report::Saving { most_bytes } => Writer::new(SAVING).bytes(&most_bytes.to_le_bytes()),
            Report::Published(ports) => {
                put_texts(PUBLISHED, ports, Self::MOST_PUBLISHED, PORT_BYTES)
            }
            Report::Interfaces(all) => {
                put_texts(INTERFACES, all, Self::MOST_INTERFACES, INTERFACE_BYTES)
            }
        }
        .finish()
    }

    /// Of a message.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (kind, mut reader) = Reader::new(message)?;
        let report = match kind {
            READY => Report::Ready,
            ANSWER => Report::Answer {
                to: reader.u32()?,
                refused: reader.option(take_failure)?,
            },
            STATS => return Ok(Report::Stats(reader.rest().to_vec())),
            ENDED => Report::Ended(Box::new(take_outcome(&mut reader)?)),
            STATE => Report::State(State::of(reader.u8()?)?),
            PUBLISHED => Report::Published(take_texts(&mut reader, Self::MOST_PUBLISHED)?),
            INTERFACES => Report::Interfaces(take_texts(&mut reader, Self::MOST_INTERFACES)?),
            SAVING => Report::Saving {
                most_bytes: take_u64(&mut reader)?,
            },
            STOOD_STILL => Report::StoodStill {
                microseconds: take_u64(&mut reader)?,
            },
            other => return Err(Malformed::Kind(other)),
        };
        reader.finish()?;
        Ok(report)
    }
}

/// As many texts, none of which is longer: others are left out.
fn put_texts(kind: u8, texts: &[String], most: usize, longest: usize) -> Writer {
    let texts = texts.iter().take(most);
    let texts = texts.filter(|text| text.len() <= longest);
    texts
        .fold(Writer::new(kind), |writer, text| writer.u8(1).text(text))
        .u8(0)
}

fn take_u64(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    Ok(u64::from(reader.u32()?) | u64::from(reader.u32()?) << 32)
}

fn take_texts(reader: &mut Reader<'_>, most: usize) -> Result<Vec<String>, Malformed> {
    let mut texts = Vec::new();
    while reader.flag()? {
        if texts.len() == most {
            return Err(Malformed::Long);
        }
        texts.push(reader.text()?);
    }
    Ok(texts)
}

fn put_outcome(writer: Writer, outcome: &Outcome) -> Writer {
    let mut reasons = REASONS.iter();
    let reason = reasons.position(|reason| *reason == outcome.reason);
    writer
        .u8(reason.unwrap_or(REASONS.len()) as u8)
        .option(outcome.code, Writer::u8)
        .option(outcome.signal, |writer, signal| writer.u32(signal as u32))
        .option(outcome.failure.as_ref(), put_failure)
}

fn take_outcome(reader: &mut Reader<'_>) -> Result<Outcome, Malformed> {
    let reason = reader.u8()?;
    let known = REASONS.get(usize::from(reason));
    let mut outcome = Outcome::new(*known.ok_or(Malformed::Value(reason))?);
    outcome.code = reader.option(Reader::u8)?;
    outcome.signal = reader.option(Reader::u32)?.map(|signal| signal as i32);
    outcome.failure = reader.option(take_failure)?;
    Ok(outcome)
}

/// What went wrong, and one behind the other what led to it.
fn put_failure(mut writer: Writer, failure: &Failure) -> Writer {
    writer = writer
        .option(failure.help.as_deref(), Writer::text)
        .text(&failure.message);
    let mut cause = failure.cause.as_deref();
    for _ in 0..MOST_CAUSES {
        let Some(failure) = cause else { break };
        writer = writer.u8(1).text(&failure.message);
        cause = failure.cause.as_deref();
    }
    writer.u8(0)
}

fn take_failure(reader: &mut Reader<'_>) -> Result<Failure, Malformed> {
    let mut failure = Failure::default();
    failure.help = reader.option(Reader::text)?;
    failure.message = reader.text()?;
    let mut causes = Vec::new();
    while reader.flag()? {
        if causes.len() == MOST_CAUSES {
            return Err(Malformed::Long);
        }
        causes.push(reader.text()?);
    }
    failure.cause = causes.into_iter().rev().fold(None, |cause, message| {
        let mut failure = Failure::default();
        failure.message = message;
        failure.cause = cause;
        Some(Box::new(failure))
    });
    Ok(failure)
}
