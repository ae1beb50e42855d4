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
}

const READY: u8 = 1;
const ANSWER: u8 = 2;
const STATS: u8 = 3;
const ENDED: u8 = 4;
const STATE: u8 = 5;
const PUBLISHED: u8 = 6;

/// No published port takes more: two addresses at most, two ports, a protocol.
const PORT_BYTES: usize = 120;
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
            Report::Published(ports) => {
                let ports = ports.iter().take(Self::MOST_PUBLISHED);
                let ports = ports.filter(|port| port.len() <= PORT_BYTES);
                ports
                    .fold(Writer::new(PUBLISHED), |writer, port| {
                        writer.u8(1).text(port)
                    })
                    .u8(0)
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
            PUBLISHED => Report::Published(take_published(&mut reader)?),
            other => return Err(Malformed::Kind(other)),
        };
        reader.finish()?;
        Ok(report)
    }
}

fn take_published(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let mut ports = Vec::new();
    while reader.flag()? {
        if ports.len() == Report::MOST_PUBLISHED {
            return Err(Malformed::Long);
        }
        ports.push(reader.text()?);
    }
    Ok(ports)
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
