use alloc::vec::Vec;
use core::fmt;

use super::{
    DescriptionError, Event, FrameError, HEADER, MAX_CREDIT, MAX_PAYLOAD, Message, Output,
    ProcessSpec, Request, Role, VERSION, agree,
};

/// How much of each stream a guest may send before the host has dealt with it, in bytes.
pub const OUTPUT_WINDOW: u32 = 64 << 10;

/// What a guest's agent said that it must not say, and what the host must not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// It is not a frame.
    Frame(FrameError),
    /// The agent knows no version that the host knows.
    Version {
        /// The newest one that it knows.
        theirs: u16,
    },
    /// It sent more of a stream than was granted.
    Flooded(Output),
    /// It granted more input than anybody can send.
    Credit,
    /// It said what makes no sense where it was said.
    OutOfOrder(&'static str),
    /// More requests are waiting to be sent than any host has.
    Backlog,
    /// The process cannot be described.
    Description(DescriptionError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "the guest's agent sent {error}"),
            Self::Version { theirs } => write!(
                f,
                "the guest's agent speaks version {theirs} and no newer one, the host {VERSION}"
            ),
            Self::Flooded(Output::Stdout) => {
                f.write_str("the guest's agent sent more standard output than was granted")
            }
            Self::Flooded(Output::Stderr) => {
                f.write_str("the guest's agent sent more standard error than was granted")
            }
            Self::Credit => f.write_str("the guest's agent granted more input than there can be"),
            Self::OutOfOrder(what) => write!(f, "the guest's agent said {what} where it cannot"),
            Self::Backlog => f.write_str("the guest's agent does not take what it is sent"),
            Self::Description(error) => write!(f, "the process cannot be described: {error}"),
        }
    }
}

impl core::error::Error for ClientError {}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// How far the process on a connection has come, as the agent tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    /// The agent has not greeted.
    Silent,
    Greeted,
    Runs,
    /// It has ended, or will never run.
    Over,
}

/// The host's half of a connection to a guest's agent, without the stream below: bytes that came are put in, and events come
/// out; requests are put in, and bytes that are to be sent come out.
///
/// Whatever the guest sends, it holds no more than one frame and [`MAX_BACKLOG`] of requests, and hands out no more output
/// than [`OUTPUT_WINDOW`] beyond what was [taken](Self::taken).
#[derive(Debug)]
pub struct Client {
    inbound: Vec<u8>,
    /// How much of `inbound` is dealt with.
    read: usize,
    outbound: Vec<u8>,
    stage: Stage,
    /// What the guest may still send, of each stream.
    granted: [u32; 2],
    /// What was taken of each stream, and not granted again.
    taken: [u32; 2],
    /// What may be sent of input.
    input_credit: u32,
    /// Nobody reads it any more.
    input_closed: bool,
}

/// How many bytes of requests wait to be sent, at most: a description and the input of a window, and some more.
pub const MAX_BACKLOG: usize = super::MAX_DESCRIPTION + (64 << 10);

/// With as many bytes waiting to be sent, no more output is granted.
const GRANT_BACKLOG: usize = 4 << 10;

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Begins a connection with a greeting.
    pub fn new() -> Self {
        let mut client = Self {
            inbound: Vec::new(),
            read: 0,
            outbound: Vec::new(),
            stage: Stage::Silent,
            granted: [0; 2],
            taken: [0; 2],
            input_credit: 0,
            input_closed: false,
        };
        client.put(&Request::Hello { version: VERSION });
        client
    }

    fn put(&mut self, request: &Request<'_>) {
        // Fields of a fixed length have no more than 16 bytes.
        let length = HEADER
            + match request {
                Request::Describe { part: bytes }
                | Request::Input { bytes }
                | Request::AddEntropy { bytes } => bytes.len(),
                Request::Network { spec } => spec.len(),
                _ => 16,
            };
        let start = self.outbound.len();
        self.outbound.resize(start + length, 0);
        // All requests that are put here fit into a frame.
        let length = request.encode(&mut self.outbound[start..]).unwrap_or(0);
        self.outbound.truncate(start + length);
    }

    /// Has a request sent; for what it has a method for itself, that keeps count.
    ///
    /// # Errors
    ///
    /// [`ClientError::Backlog`] if the agent has not taken earlier ones.
    pub fn request(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        if self.outbound.len() + HEADER + MAX_PAYLOAD > MAX_BACKLOG {
            return Err(ClientError::Backlog);
        }
        self.put(request);
        Ok(())
    }

    /// Describes a process, has it started, and takes what it writes.
    ///
    /// # Errors
    ///
    /// When it cannot be described.
    pub fn start(&mut self, spec: &ProcessSpec, role: Role) -> Result<(), ClientError> {
        self.describe(spec)?;
        self.put(&Request::Start { role });
        self.grant_windows();
        Ok(())
    }

    fn describe(&mut self, spec: &ProcessSpec) -> Result<(), ClientError> {
        let description = spec.encode().map_err(ClientError::Description)?;
        let length = description.len() as u32;
        self.put(&Request::Begin { length });
        for part in description.chunks(MAX_PAYLOAD) {
            self.put(&Request::Describe { part });
        }
        Ok(())
    }

    /// Makes a machine that goes on from a snapshot one of its own, with the name, the networks and the hosts of a description.
    ///
    /// # Errors
    ///
    /// When it cannot be described.
    pub fn renew(&mut self, spec: &ProcessSpec) -> Result<(), ClientError> {
        self.describe(spec)?;
        self.put(&Request::Renew);
        Ok(())
    }

    /// Takes over the service of a guest that was started before.
    pub fn attach(&mut self) {
        self.put(&Request::Attach);
        self.grant_windows();
    }

    fn grant_windows(&mut self) {
        for output in Output::ALL {
            self.grant(output, OUTPUT_WINDOW);
        }
    }

    fn grant(&mut self, output: Output, bytes: u32) {
        self.granted[output.index()] += bytes;
        self.put(&Request::Credit { output, bytes });
    }

    /// What was handed out of a stream is dealt with; the guest may send as much again.
    pub fn taken(&mut self, output: Output, bytes: usize) {
        let taken = &mut self.taken[output.index()];
        *taken = taken.saturating_add(bytes as u32).min(OUTPUT_WINDOW);
        self.grant_again();
    }

    /// Grants what was taken, in few frames, but none to a guest that does not take earlier ones.
    fn grant_again(&mut self) {
        for output in Output::ALL {
            let taken = self.taken[output.index()];
            if taken >= OUTPUT_WINDOW / 2 && self.outbound.len() < GRANT_BACKLOG {
                self.taken[output.index()] = 0;
                self.grant(output, taken);
            }
        }
    }

    /// Sends as much of `bytes` to the process as it is ready for, and says how much that is.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.input_room());
        if count > 0 {
            self.input_credit -= count as u32;
            self.put(&Request::Input {
                bytes: &bytes[..count],
            });
        }
        count
    }

    /// How much input can be sent at once now.
    pub fn input_room(&self) -> usize {
        if self.input_closed() {
            return 0;
        }
        let room = MAX_BACKLOG.saturating_sub(self.outbound.len() + HEADER + MAX_PAYLOAD);
        (self.input_credit as usize).min(room).min(MAX_PAYLOAD)
    }

    /// Whether the process reads no more input, so that there is no use in waiting to send some.
    pub fn input_closed(&self) -> bool {
        self.input_closed || self.stage == Stage::Over
    }

    /// What is to be sent to the agent.
    pub fn outgoing(&self) -> &[u8] {
        &self.outbound
    }

    /// The first bytes of [`Self::outgoing`] were sent.
    pub fn sent(&mut self, count: usize) {
        self.outbound.drain(..count.min(self.outbound.len()));
        self.grant_again();
    }

    /// How many more bytes can be put in; some once [`Self::next_event`] has nothing more to hand out.
    pub fn room(&self) -> usize {
        HEADER + MAX_PAYLOAD - (self.inbound.len() - self.read)
    }

    /// Takes bytes that came from the agent, as many as there is [room](Self::room) for, and says how many.
    pub fn received(&mut self, bytes: &[u8]) -> usize {
        self.inbound.drain(..self.read);
        self.read = 0;
        let count = bytes.len().min(self.room());
        self.inbound.extend_from_slice(&bytes[..count]);
        count
    }

    /// Hands out what the agent has said next, once that has come as a whole.
    ///
    /// # Errors
    ///
    /// When it must not be said. The connection is of no use then.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, ClientError> {
        let Some((event, length)) = Event::decode(&self.inbound[self.read..])? else {
            return Ok(None);
        };
        self.read += length;
        let next = self.stage.after(&event)?;
        match event {
            Event::Output { output, bytes } => {
                let granted = &mut self.granted[output.index()];
                *granted = granted
                    .checked_sub(bytes.len() as u32)
                    .ok_or(ClientError::Flooded(output))?;
            }
            Event::InputCredit { bytes } => {
                let credit = self.input_credit.checked_add(bytes);
                self.input_credit = credit
                    .filter(|credit| *credit <= MAX_CREDIT)
                    .ok_or(ClientError::Credit)?;
            }
            Event::InputClosed => self.input_closed = true,
            _ => {}
        }
        self.stage = next;
        Ok(Some(event))
    }
}

impl Stage {
    /// How far it is after an event; an error where that cannot come.
    fn after(self, event: &Event<'_>) -> Result<Self, ClientError> {
        let wrong = |what| Err(ClientError::OutOfOrder(what));
        match (event, self) {
            (Event::Hello { version }, Self::Silent) => match agree(*version) {
                Some(_) => Ok(Self::Greeted),
                None => Err(ClientError::Version { theirs: *version }),
            },
            (Event::Hello { .. }, _) => wrong("a greeting"),
            (_, Self::Silent) => wrong("something before its greeting"),
            (Event::Failed { .. } | Event::Done | Event::Clock { .. }, stage) => Ok(stage),
            (Event::Started { .. }, Self::Greeted) => Ok(Self::Runs),
            (Event::Started { .. }, _) => wrong("that a process has started"),
            (Event::Exited { .. }, Self::Runs) => Ok(Self::Over),
            (Event::Exited { .. }, _) => wrong("that a process has ended"),
            (_, Self::Runs) => Ok(Self::Runs),
            (_, _) => wrong("something of a process"),
        }
    }
}

#[cfg(test)]
mod tests;
